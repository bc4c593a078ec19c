"""Replay: coordinator code on an event loop without clock and I/O, against its journal."""
