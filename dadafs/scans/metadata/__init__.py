"""What all accounts of a scan together say: its frames, its raster, its geometry."""
