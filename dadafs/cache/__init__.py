"""Caches: patch results on disk, recent values in memory."""
