"""Shards on disk behind `IShardStore`."""
