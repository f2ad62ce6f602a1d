"""Files beside a scan that tell about it, or correct it."""
