"""Where the chunk of each frame lies."""
