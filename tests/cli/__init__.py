"""The `ostore` command."""
