"""What ostore adds to twistd. Kept light: twistd loads it for every command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.application.service import IService

    from ostore.service.options import RoleOptions


@implementer(IPlugin, IServiceMaker)
class Standalone:
    """`twistd ostore-standalone`; a service that cannot be made ends in one line."""

    tapname = "ostore-standalone"
    description = "An object store in one process: the api and six data nodes."

    def options(self) -> RoleOptions:
        """Read the command line."""
        from ostore.service.options import StandaloneOptions

        return StandaloneOptions()  # type: ignore[no-untyped-call] # Twisted has none

    def makeService(self, options: RoleOptions) -> IService:
        """Make the service that the options describe."""
        from ostore.service.console import never_wait_for_readers
        from ostore.service.failing import StartError
        from ostore.service.standalone import makeService

        never_wait_for_readers()
        try:
            return makeService(options)
        except StartError as error:
            raise SystemExit(f"{self.tapname}: {error}") from None


standalone = Standalone()
