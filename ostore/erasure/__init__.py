"""Bytes to shards and back: no Twisted."""
