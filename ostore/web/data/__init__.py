"""The HTTP face of one node."""
