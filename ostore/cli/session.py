"""What every verb works with, made once a command from options and settings."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ostore.cli.backoff import Backoff
from ostore.cli.client import Client
from ostore.cli.console import Console
from ostore.cli.failures import Misused
from ostore.cli.journal import Journal
from ostore.cli.remote import Remote
from ostore.cli.settings import Settings, resolve

if TYPE_CHECKING:
    from ostore.cli.download import Downloads
    from ostore.cli.sent import Limits
from ostore.cli.upload import Uploads


@attrs.frozen
class World:
    """What is outside of the process: given once, by `main`.

    `stops` are called, from the handler of a signal, when the command shall end.
    """

    environ: Mapping[str, str]
    wall: Callable[[], float]
    sleep: Callable[[float], object]
    chance: Callable[[], float]
    entropy: Callable[[int], bytes] = os.urandom
    stops: list[Callable[[], object]] = attrs.field(factory=list)


class Session:
    """One command; made when a verb begins, ended when it ends."""

    def __init__(self, world: World, options: Mapping[str, Any]) -> None:
        self.world = world
        self.settings: Settings = resolve(options, world.environ)
        self.console = Console(
            as_json=bool(options.get("as_json")),
            quiet=bool(options.get("quiet")),
            environ=world.environ,
        )
        self.client = Client(
            self.settings.endpoint,
            wall=world.wall,
            sleep=world.sleep,
            chance=world.chance,
            backoff=Backoff(attempts=int(options.get("retries") or 0) + 1),
            patient=bool(options.get("patient")),
            authorization=self.settings.authorization(),
            trust=self._trust,
            told=self.console.say,
        )
        world.stops.append(self.client.stop)
        self.remote = Remote(self.client, world.entropy)
        self.journal = Journal(self.settings.state, world.wall)

    def uploads(self, limits: Limits) -> Uploads:
        """For verbs that send."""
        from ostore.cli.upload import Uploads  # noqa: PLC0415  # only they need it

        return Uploads(self.remote, self.journal, limits)

    def downloads(self, piece: int, ranges: int) -> Downloads:
        """For verbs that receive."""
        from ostore.cli.download import Downloads  # noqa: PLC0415  # only they need it

        return Downloads(self.remote, self.journal, piece=piece, ranges=ranges)

    def close(self) -> None:
        """End it."""
        self.client.close()

    def _trust(self) -> ssl.SSLContext:
        path = self.settings.ca_file
        try:
            return ssl.create_default_context(cafile=str(path) if path else None)
        except (OSError, ssl.SSLError) as error:
            raise Misused(f"ca-file {str(path)!a} cannot be used: {error}") from None
