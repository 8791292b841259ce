"""Packs: many files in one object, a zip with SHA-256 and an index that is checked."""
