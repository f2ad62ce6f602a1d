"""Reading files: HDF5, single images, chunks and their filters. Knows of no scan."""
