"""ostore: a distributed, erasure-coded, self-mending object store."""

__version__ = "0.1.0"
