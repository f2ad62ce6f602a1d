"""Patches go out to computers, values come back."""
