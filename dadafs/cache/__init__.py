"""Caches: values in RAM and on disk, found by their keys."""
