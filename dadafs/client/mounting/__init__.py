"""A mount from its beginning to its end."""
