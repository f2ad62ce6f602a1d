"""What is at a path, and what reading it gives. Knows nothing of FUSE."""
