"""The verbs, one module each; `command` is what `ostore` runs."""
