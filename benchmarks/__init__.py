"""Benchmarks of a running server, and of what the machine could do without one."""
