"""Definitions and kernels of the analyses. Knows no file, socket or FUSE."""
