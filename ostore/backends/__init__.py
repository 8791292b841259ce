"""Where things are kept: bus, metadata, shards, nodes; strangers to each other."""
