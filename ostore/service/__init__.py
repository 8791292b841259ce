"""Wiring: settings and services; the only room that knows the reactor."""
