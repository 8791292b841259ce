"""How bytes move, with back-pressure: Twisted, but no word of objects."""
