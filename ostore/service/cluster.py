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

    def refused(self, setting: str) -> Callable[[str], None]:
        """What to do when a server refuses us: before we were ready it is the end."""

        def tell(why: str) -> None:
            if self.ready:
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
                refused=self.refused("rabbitmq-server"),
            )
        except Malformed as error:
            raise StartError(f"rabbitmq-server: {error}") from error
        self.undo(bus.stop)
        return bus
