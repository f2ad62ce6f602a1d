"""The commands, a family in each room.

Every room has `add`, which declares its commands and imports nothing heavy: what a command needs
is imported by the command, so that `dadafs --help` and completion are quick.
"""
