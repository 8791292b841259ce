"""What ostore adds to twistd. Kept light: twistd loads it for every command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.application.service import IService

    from ostore.service.options import RoleOptions


@implementer(IPlugin, IServiceMaker)
class Role:
    """`twistd {tapname}`; a service that cannot be made ends in one line."""

    def __init__(self, tapname: str, description: str, module: str) -> None:
        """`module` is the one of ostore.service that makes the service."""
        self.tapname = tapname
        self.description = description
        self._module = f"ostore.service.{module}"

    def options(self) -> RoleOptions:
        """Read the command line."""
        made = import_module(self._module).Options()
        return cast("RoleOptions", made)

    def makeService(self, options: RoleOptions) -> IService:
        """Make the service that the options describe."""
        from ostore.service.allocation import give_back_memory, settle
        from ostore.service.console import never_wait_for_readers
        from ostore.service.failing import StartError

        never_wait_for_readers()
        give_back_memory()
        try:
            made = import_module(self._module).makeService(options)
        except StartError as error:
            raise SystemExit(f"{self.tapname}: {error}") from None
        made.risen = settle
        return cast("IService", made)


standalone = Role(
    "ostore-standalone",
    "An object store in one process: the api and six data nodes.",
    "standalone",
)
api = Role(
    "ostore-api",
    "The HTTP api of an object store: one of any number of equals.",
    "api",
)
data = Role(
    "ostore-data",
    "The data nodes of one machine: one for each storage root.",
    "data",
)
