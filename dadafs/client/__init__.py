"""The client: the mount, the farm and the peers it reaches."""
