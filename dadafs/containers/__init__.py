"""Containers: the file formats of results, each prefix + raw array + suffix."""
