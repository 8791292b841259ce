"""The table of settings, and what a service holds once they are read.

A row of SETTINGS makes the option `--key`, the environment's `OSTORE_KEY`, the
file's `key`, and what every refusal says.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ostore.model.layouts import MAX_SHARDS
from ostore.service import kinds
from ostore.service.kinds import Address, Kind

PREFIX = "OSTORE_"


@attrs.frozen
class Setting:
    """One row: `default` is text as an operator would write it.

    A default in angle brackets is computed from the others. `plain` names an
    environment variable that is read where the `OSTORE_` one is not set.
    """

    key: str
    kind: Kind
    default: str
    help: str
    roles: frozenset[str] = frozenset({"standalone"})
    plain: str = ""

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.key.upper().replace("-", "_")

    @property
    def field(self) -> str:
        """Its name in Settings."""
        return self.key.replace("-", "_")

    @property
    def computed(self) -> bool:
        """Whether the default depends on other settings."""
        return self.default.startswith("<")


SETTINGS = (
    Setting(
        "listen",
        kinds.Listen(),
        "127.0.0.1:8080",
        "where the api is served",
        plain="LISTEN_ADDRESS",
    ),
    Setting(
        "storage-root",
        kinds.Path(),
        "./ostore-data",
        "the folder that holds everything; made when missing",
        plain="STORAGE_ROOT",
    ),
    Setting("nodes", kinds.Count(1, 256), "6", "data nodes, a folder each"),
    Setting(
        "data-shards",
        kinds.Count(1, MAX_SHARDS),
        "4",
        "k: a content is cut into so many data shards",
    ),
    Setting(
        "parity-shards",
        kinds.Count(0, MAX_SHARDS - 1),
        "2",
        "m: and so many parity shards, each of which may replace any other",
    ),
    Setting(
        "write-quorum",
        kinds.Count(1, MAX_SHARDS),
        "<min(k + 1, k + m)>",
        "a write succeeds once so many shards are durable",
    ),
    Setting(
        "laggard",
        kinds.Duration("10ms", "1h"),
        "1s",
        "a node that is so far behind the others of a write is given up",
    ),
    Setting(
        "heartbeat",
        kinds.Duration("100ms", "1h"),
        "5s",
        "how often a node says that it lives",
    ),
    Setting(
        "node-timeout",
        kinds.Duration("200ms", "24h"),
        "10s",
        "a node that was silent so long is down",
    ),
    Setting(
        "locate-timeout",
        kinds.Duration("10ms", "1min"),
        "1s",
        "how long the nodes have to say what they hold",
    ),
    Setting(
        "orphan-grace",
        kinds.Duration("1s", "365d"),
        "1h",
        "shards that no version names are left alone so long",
    ),
    Setting(
        "rebuild-delay",
        kinds.Duration("0s", "365d"),
        "10min",
        "how long a node may be away before its shards are built anew elsewhere",
    ),
    Setting(
        "repair",
        kinds.Switch(),
        "on",
        "off: nothing is repaired by itself",
    ),
    Setting(
        "metadata",
        kinds.Metadata(),
        "sqlite",
        "where versions are kept; sqlite alone means <storage-root>/metadata.sqlite",
    ),
    Setting(
        "require-digest",
        kinds.Switch(),
        "off",
        "on: PUT and POST without a digest are refused",
    ),
    Setting(
        "durability",
        kinds.Choice(("strict", "relaxed")),
        "strict",
        "relaxed: no fsync before a write is acknowledged",
    ),
    Setting(
        "cluster-secret-file",
        kinds.Path(),
        "<storage-root/secret>",
        "signs what services say to each other; made on the first start",
    ),
)

CONFIG = Setting(
    "config", kinds.Path(), "<none>", "a TOML file with any of these settings"
)


@attrs.frozen
class Settings:
    """What a standalone service was told; durations in seconds, paths absolute.

    `metadata` is the path of the SQLite file.
    """

    listen: Address
    storage_root: str
    nodes: int
    data_shards: int
    parity_shards: int
    write_quorum: int
    laggard: float
    heartbeat: float
    node_timeout: float
    locate_timeout: float
    orphan_grace: float
    rebuild_delay: float
    repair: bool
    metadata: str
    require_digest: bool
    durability: str
    cluster_secret_file: str


def rows(role: str) -> Iterator[Setting]:
    """The settings that a role has a use for."""
    return (setting for setting in SETTINGS if role in setting.roles)
