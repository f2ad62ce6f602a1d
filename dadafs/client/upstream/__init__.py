"""What a client gets from the server: answers, places of frames, fragments of raw files."""
