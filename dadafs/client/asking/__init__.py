"""The other end of the control socket: what commands ask of a mount."""
