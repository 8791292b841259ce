"""Everything that is claimed of ostore."""

from hypothesis import settings

# A busy machine is slow, not wrong.
settings.register_profile("ostore", deadline=None)
settings.load_profile("ostore")
