"""The verbs: put, get, locate, mend, list; no HTTP words."""
