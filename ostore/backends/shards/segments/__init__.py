"""Shards of small contents, packed into append-only segments."""
