"""The HTTP face of the api service."""
