"""The table of settings, and what a service holds once they are read.

A row of SETTINGS makes the option `--key`, the environment's `OSTORE_KEY`, the
file's `key`, and what every refusal says, for the roles that it names.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ostore.model.layouts import MAX_SHARDS
from ostore.service import kinds
from ostore.service.kinds import Address, Kind

PREFIX = "OSTORE_"

STANDALONE, API, DATA = (frozenset({each}) for each in ("standalone", "api", "data"))
ENGINE = STANDALONE | API
CLUSTER = API | DATA
ALL = STANDALONE | API | DATA


@attrs.frozen
class Setting:
    """One row: `default` is text as an operator would write it.

    A default in angle brackets is computed from the others, or says that there is
    none. `plain` names an environment variable that is read where the `OSTORE_` one
    is not set. A key whose meaning differs between roles has a row for each.
    """

    key: str
    roles: frozenset[str]
    kind: Kind
    default: str
    help: str
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
        ENGINE,
        kinds.Listen(),
        "127.0.0.1:8080",
        "where the api is served",
        plain="LISTEN_ADDRESS",
    ),
    Setting(
        "listen",
        DATA,
        kinds.Listen(),
        "127.0.0.1:8081",
        "where the first node is served; the others take the ports behind it",
        plain="LISTEN_ADDRESS",
    ),
    Setting(
        "storage-root",
        STANDALONE,
        kinds.Path(),
        "./ostore-data",
        "the folder that holds everything; made when missing",
        plain="STORAGE_ROOT",
    ),
    Setting(
        "storage-root",
        DATA,
        kinds.Several(kinds.Path()),
        "<none>",
        "the folder of a node; repeated: a node for each; made when missing",
        plain="STORAGE_ROOT",
    ),
    Setting(
        "advertise",
        DATA,
        kinds.Several(kinds.Url()),
        "<listen>",
        "where other services reach the node; repeated in the order of the roots",
    ),
    Setting(
        "zone",
        DATA,
        kinds.Several(kinds.Label()),
        "<host name>",
        "what fails together; repeated in the order of the roots",
    ),
    Setting(
        "rabbitmq-server",
        CLUSTER,
        kinds.Several(kinds.broker()),
        "amqp://guest:guest@127.0.0.1:5672/",
        "the message broker; several are tried in turn",
        plain="RABBITMQ_SERVER",
    ),
    Setting(
        "es-server",
        API,
        kinds.Several(kinds.search_server()),
        "http://127.0.0.1:9200",
        "Elasticsearch or OpenSearch; several share the work",
        plain="ES_SERVER",
    ),
    Setting(
        "es-api-key-file",
        API,
        kinds.Path(),
        "<none>",
        "holds the API key for the search server",
    ),
    Setting("nodes", STANDALONE, kinds.Count(1, 256), "6", "data nodes, a folder each"),
    Setting(
        "data-shards",
        ENGINE,
        kinds.Count(1, MAX_SHARDS),
        "4",
        "k: a content is cut into so many data shards",
    ),
    Setting(
        "parity-shards",
        ENGINE,
        kinds.Count(0, MAX_SHARDS - 1),
        "2",
        "m: and so many parity shards, each of which may replace any other",
    ),
    Setting(
        "write-quorum",
        ENGINE,
        kinds.Count(1, MAX_SHARDS),
        "<min(k + 1, k + m)>",
        "a write succeeds once so many shards are durable",
    ),
    Setting(
        "laggard",
        ENGINE,
        kinds.Duration("10ms", "1h"),
        "1s",
        "a node that is so far behind the others of a write is given up",
    ),
    Setting(
        "heartbeat",
        ALL,
        kinds.Duration("100ms", "1h"),
        "5s",
        "how often a node says that it lives",
    ),
    Setting(
        "node-timeout",
        ENGINE,
        kinds.Duration("200ms", "24h"),
        "10s",
        "a node that was silent so long is down",
    ),
    Setting(
        "locate-timeout",
        ENGINE,
        kinds.Duration("10ms", "1min"),
        "1s",
        "how long the nodes have to say what they hold",
    ),
    Setting(
        "upload-expiry",
        ENGINE,
        kinds.Duration("1min", "365d"),
        "24h",
        "a resumable upload is removed when its last part is so old",
    ),
    Setting(
        "instant-upload",
        ENGINE,
        kinds.Switch(),
        "on",
        "off: a resumable upload is sent also when its content is known",
    ),
    Setting(
        "orphan-grace",
        ENGINE,
        kinds.Duration("1s", "365d"),
        "1h",
        "shards that no version names are left alone so long",
    ),
    Setting(
        "keep-versions",
        ENGINE,
        kinds.Count(0, 1_000_000),
        "5",
        "so many versions of a name are kept, markers counted; 0 keeps all",
    ),
    Setting(
        "garbage-expiry",
        ENGINE,
        kinds.Duration("1s", "365d"),
        "7d",
        "what was moved to garbage is removed for good after this time",
    ),
    Setting(
        "maintenance-interval",
        ENGINE,
        kinds.Duration("1s", "365d"),
        "1h",
        "how often old versions, orphans and garbage are looked for",
    ),
    Setting(
        "scrub-period",
        ENGINE,
        kinds.Duration("1s", "3650d"),
        "30d",
        "every shard is read and checked once in this time",
    ),
    Setting(
        "rebuild-delay",
        ENGINE,
        kinds.Duration("0s", "365d"),
        "10min",
        "how long a node may be away before its shards are built anew elsewhere",
    ),
    Setting(
        "repair",
        ENGINE,
        kinds.Switch(),
        "on",
        "off: nothing is repaired, moved or removed by itself",
    ),
    Setting(
        "metadata",
        STANDALONE,
        kinds.Metadata(("sqlite",)),
        "sqlite",
        "where versions are kept; sqlite alone means <storage-root>/metadata.sqlite",
    ),
    Setting(
        "metadata",
        API,
        kinds.Metadata(("elastic",)),
        "elastic",
        "where versions are kept; sqlite:PATH is for one api service alone",
    ),
    Setting(
        "workers",
        API,
        kinds.Count(1, 64),
        "1",
        "processes that share the port; each has its own limits of connections",
    ),
    Setting(
        "compression",
        ENGINE,
        kinds.Choice(("zstd", "none")),
        "zstd",
        "zstd: what shrinks is compressed before it is cut into shards",
    ),
    Setting(
        "codec",
        ENGINE,
        kinds.Choice(("auto", "zfec", "isal")),
        "auto",
        "what computes parity; auto: isal where it is installed, else zfec",
    ),
    Setting(
        "require-digest",
        ENGINE,
        kinds.Switch(),
        "off",
        "on: PUT and POST without a digest are refused",
    ),
    Setting(
        "durability",
        ALL,
        kinds.Choice(("strict", "relaxed")),
        "strict",
        "relaxed: no fsync before a write is acknowledged",
    ),
    Setting(
        "pack-limit",
        STANDALONE | DATA,
        kinds.Size("0", "1MiB"),
        "1MiB",
        "contents up to this size are packed into segments; 0: each shard is a file",
    ),
    Setting(
        "max-head",
        ALL,
        kinds.Size("8KiB", "1MiB"),
        "16KiB",
        "the head of a request, and each line of it, has at most so many bytes",
    ),
    Setting(
        "head-timeout",
        ALL,
        kinds.Duration("100ms", "1h"),
        "30s",
        "the head of a request has to come within this time",
    ),
    Setting(
        "idle-timeout",
        ALL,
        kinds.Duration("100ms", "1h"),
        "60s",
        "a client that sends and takes nothing for so long is let go",
    ),
    Setting(
        "min-progress",
        ENGINE,
        kinds.Size("1B", "1GiB"),
        "1KiB",
        "so much of a body has to be sent or taken in each idle-timeout",
    ),
    Setting(
        "max-connections",
        ALL,
        kinds.Count(1, 1_000_000),
        "8192",
        "connections beyond these are cut at once; a data service has so many a node",
    ),
    Setting(
        "max-connections-per-address",
        ENGINE,
        kinds.Count(1, 1_000_000),
        "4096",
        "and those beyond these from one address",
    ),
    Setting(
        "cluster-secret-file",
        STANDALONE,
        kinds.Path(),
        "<storage-root/secret>",
        "signs what services say to each other; made on the first start",
    ),
    Setting(
        "cluster-secret-file",
        CLUSTER,
        kinds.Path(),
        "<none>",
        "signs what services say to each other; the same for all of a cluster",
    ),
    Setting(
        "access-log",
        STANDALONE,
        kinds.Path(),
        "<storage-root/access.log>",
        "a line of JSON for each request",
    ),
    Setting(
        "access-log",
        CLUSTER,
        kinds.Path(),
        "<none>",
        "a line of JSON for each request; none without it",
    ),
    Setting(
        "tls-certificate",
        ALL,
        kinds.Path(),
        "<none>",
        "serve HTTPS with this certificate (PEM; chain behind it)",
    ),
    Setting("tls-key", ALL, kinds.Path(), "<none>", "the certificate's key (PEM)"),
    Setting(
        "tls-ca",
        CLUSTER,
        kinds.Path(),
        "<none>",
        "vouches for the other services, for amqps:// and https:// servers (PEM)",
    ),
)

CONFIG = Setting(
    "config", ALL, kinds.Path(), "<none>", "a TOML file with any of these settings"
)


@attrs.frozen(kw_only=True)
class Settings:
    """What a service was told; durations in seconds, paths absolute.

    `metadata` is the path of an SQLite file, or None for a search server. Fields that
    the role has no use for keep the values given here. URLs that may hold a password
    are no part of its `repr`.
    """

    listen: Address
    heartbeat: float
    durability: str
    cluster_secret_file: str
    max_head: int = 16 * 1024
    head_timeout: float = 30.0
    idle_timeout: float = 60.0
    max_connections: int = 8192
    access_log: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    # data, and standalone's one
    storage_root: str | tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    zone: tuple[str, ...] = ()
    nodes: int = 0
    pack_limit: int = 0
    # api and standalone
    data_shards: int = 0
    parity_shards: int = 0
    write_quorum: int = 0
    laggard: float = 0.0
    node_timeout: float = 0.0
    locate_timeout: float = 0.0
    upload_expiry: float = 0.0
    instant_upload: bool = True
    orphan_grace: float = 0.0
    keep_versions: int = 0
    garbage_expiry: float = 0.0
    maintenance_interval: float = 0.0
    scrub_period: float = 0.0
    rebuild_delay: float = 0.0
    repair: bool = True
    metadata: str | None = None
    compression: str = "none"
    codec: str = "zfec"
    require_digest: bool = False
    min_progress: int = 1
    max_connections_per_address: int | None = None
    workers: int = 1
    # the cluster's
    rabbitmq_server: tuple[str, ...] = attrs.field(default=(), repr=False)
    es_server: tuple[str, ...] = attrs.field(default=(), repr=False)
    es_api_key_file: str | None = None

    @property
    def root(self) -> str:
        """The one storage root of a standalone service."""
        assert isinstance(self.storage_root, str)
        return self.storage_root

    @property
    def roots(self) -> tuple[str, ...]:
        """The storage roots of a data service."""
        assert isinstance(self.storage_root, tuple)
        return self.storage_root

    @property
    def durable(self) -> bool:
        """Whether everything is synced before it is acknowledged."""
        return self.durability == "strict"


def rows(role: str) -> Iterator[Setting]:
    """The settings that a role has a use for."""
    return (setting for setting in SETTINGS if role in setting.roles)
