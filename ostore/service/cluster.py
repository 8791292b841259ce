"""What the services of a cluster share: their secret, and the way to the broker."""

from __future__ import annotations

from collections.abc import Callable

from ostore.backends.bus.amqp.bus import AMQPBus
from ostore.model.errors import Malformed
from ostore.service.failing import StartError
from ostore.service.process import Process


class Member(Process):
    """A process of a cluster; api and data service are two of them."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type] # as Process has them
        self.ready = False

    def refused(self, setting: str, servers: int) -> Callable[[str], None]:
        """What to do when a server refuses us.

        The only one there is ends a start; one of several, or one that took us before,
        may be mended while we go on.
        """

        def tell(why: str) -> None:
            if self.ready or servers > 1:
                self._log.error("{setting}: {why}", setting=setting, why=why)
            else:
                self.fail(f"{setting}: {why}")

        return tell

    def bus(self) -> AMQPBus:
        """The message bus, not yet started."""
        try:
            bus = AMQPBus(
                self.clock,
                self.reactor,
                self.entropy,
                self.settings.rabbitmq_server,
                self.certificates.authorities,
                refused=self.refused(
                    "rabbitmq-server", len(self.settings.rabbitmq_server)
                ),
            )
        except Malformed as error:
            raise StartError(f"rabbitmq-server: {error}") from error
        self.undo(bus.stop)
        return bus
