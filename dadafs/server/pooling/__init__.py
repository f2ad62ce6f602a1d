"""Fragments on a fast local disk: their files, the order of their use, the pool."""
