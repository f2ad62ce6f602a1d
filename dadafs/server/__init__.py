"""The server: the only one that sees the raw files; catalog, frame index, file attributes."""
