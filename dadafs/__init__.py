"""A filesystem whose files are the analyses of X-ray nanobeam scans."""

__version__ = "0.1.0"
