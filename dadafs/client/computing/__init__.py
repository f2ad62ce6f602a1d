"""A peer: patches come in, values go out."""
