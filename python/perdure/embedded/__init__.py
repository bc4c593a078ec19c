"""The embedded server: its binaries, and the process that keeps it."""
