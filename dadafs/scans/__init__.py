"""Scans: finding them among raw files, reading their metadata, indexing their frames."""
