"""The tree as the kernel asks for it."""
