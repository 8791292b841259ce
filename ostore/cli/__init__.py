"""The `ostore` command: one module a verb, over a synchronous client."""
