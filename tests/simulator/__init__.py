"""A whole cluster in one process, in which everything but the code is simulated."""
