"""Whatever holds for connections without copies holds for Twisted's own as well."""

from __future__ import annotations

from types import ModuleType

from tests.streaming import test_early_answer, test_reply, test_request, test_wire
from tests.streaming.wire import SiteCase


def ordinary(module: ModuleType) -> dict[str, type]:
    """The cases of a module, over connections as Twisted makes them."""
    return {
        f"Ordinary{name}": type(
            f"Ordinary{name}",
            (case,),
            {"without_copies": False, "__module__": __name__},
        )
        for name, case in vars(module).items()
        if isinstance(case, type)
        and issubclass(case, SiteCase)
        and case.__module__ == module.__name__
    }


for each in (test_early_answer, test_reply, test_request, test_wire):
    globals().update(ordinary(each))
