"""What stands behind a mount: processes of its own, or a cluster."""
