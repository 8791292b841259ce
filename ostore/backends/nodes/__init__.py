"""The nodes of a cluster behind `INodes`."""
