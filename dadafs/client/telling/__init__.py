"""What a mount tells of itself and of its paths."""
