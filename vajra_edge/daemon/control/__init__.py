"""The local socket: one JSON line asks, JSON lines answer."""
