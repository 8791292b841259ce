"""Values and pure decisions: no Twisted, no IO."""
