"""Settings: where they come from, and how they are refused."""

from __future__ import annotations

import json
import socket
import tomllib
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ostore.service import kinds
from ostore.service.config import resolve
from ostore.service.failing import StartError
from ostore.service.kinds import Address
from ostore.service.settings import CONFIG, SETTINGS, Settings, rows

CHECKOUT = Path(__file__).parents[2]
ROLES = ("standalone", "api", "data")
MISSING = {
    "standalone": {},
    "api": {"OSTORE_CLUSTER_SECRET_FILE": "/secret"},
    "data": {
        "OSTORE_CLUSTER_SECRET_FILE": "/secret",
        "OSTORE_STORAGE_ROOT": "/mnt/1",
    },
}
"""What a role does not start without, by way of the environment."""
REQUIRED = {
    "standalone": set(),
    "api": {"cluster-secret-file"},
    "data": {"cluster-secret-file", "storage-root"},
}
"""What its sample sets, for want of a default."""
UNSAID = ("<none>", "<listen>", "<host name>")
SAID = {
    "<storage-root/secret>": "secret in storage-root",
    "<storage-root/access.log>": "access.log in storage-root",
    "<listen>": "where it listens",
}
"""Defaults that the page puts into other words."""


class ConfigCase(SynchronousTestCase):
    """Settings of a role from options, environment and a file's text."""

    role = "standalone"

    def file(self, text: str) -> str:
        """The path of a file with that text."""
        path: str = self.mktemp()
        Path(path).write_text(text, "utf-8")
        return path

    def resolve(
        self,
        options: dict[str, str | None] | None = None,
        environ: dict[str, str] | None = None,
        file: str | None = None,
    ) -> Settings:
        """What comes of them and of what must not be missing.

        The file goes in as an option.
        """
        given = dict(options or {})
        if file is not None:
            self.path = given["config"] = self.file(file)
        return resolve(self.role, given, MISSING[self.role] | (environ or {}))

    def refusal(
        self,
        options: dict[str, str | None] | None = None,
        environ: dict[str, str] | None = None,
        file: str | None = None,
    ) -> str:
        """The line that refuses them."""
        error = self.assertRaises(StartError, self.resolve, options, environ, file)
        line = str(error)
        self.assertTrue(line.isprintable(), line)
        return line


class SourcesTests(ConfigCase):
    """Option, environment, file, default."""

    def test_defaults(self) -> None:
        """Nothing given: the documented defaults, paths absolute."""
        settings = self.resolve()
        root = str(Path.cwd() / "ostore-data")
        self.assertEqual(
            settings,
            Settings(
                listen=Address("127.0.0.1", 8080),
                storage_root=root,
                nodes=6,
                data_shards=4,
                parity_shards=2,
                write_quorum=5,
                laggard=1,
                heartbeat=5,
                node_timeout=10,
                locate_timeout=1,
                upload_expiry=86400,
                orphan_grace=3600,
                keep_versions=5,
                garbage_expiry=7 * 24 * 3600,
                maintenance_interval=3600,
                scrub_period=30 * 24 * 3600,
                rebuild_delay=600,
                repair=True,
                metadata=f"{root}/metadata.sqlite",
                compression="zstd",
                codec="auto",
                require_digest=False,
                durability="strict",
                pack_limit=1 << 20,
                cluster_secret_file=f"{root}/secret",
                max_head=16384,
                head_timeout=30,
                idle_timeout=60,
                min_progress=1024,
                max_connections=8192,
                max_connections_per_address=4096,
                access_log=f"{root}/access.log",
            ),
        )

    def test_order(self) -> None:
        """Option above environment above file above default."""
        file = 'nodes = 7\nlaggard = "7s"\nheartbeat = "7s"\n'
        environ = {"OSTORE_NODES": "8", "OSTORE_LAGGARD": "8s"}
        settings = self.resolve({"nodes": "9", "laggard": None}, environ, file)
        self.assertEqual(settings.nodes, 9)
        self.assertEqual(settings.laggard, 8)
        self.assertEqual(settings.heartbeat, 7)
        self.assertEqual(settings.node_timeout, 10)

    def test_file_from_environment(self) -> None:
        """OSTORE_CONFIG names the file where no option does."""
        self.resolve(file="nodes = 7")
        settings = self.resolve(environ={"OSTORE_CONFIG": self.path})
        self.assertEqual(settings.nodes, 7)

    def test_plain_names(self) -> None:
        """LISTEN_ADDRESS and STORAGE_ROOT are read, below their OSTORE_ twins."""
        environ = {"LISTEN_ADDRESS": "[::1]:1", "STORAGE_ROOT": "/plain"}
        settings = self.resolve(environ=environ)
        self.assertEqual(settings.listen, Address("::1", 1))
        self.assertEqual(settings.metadata, "/plain/metadata.sqlite")
        environ["OSTORE_STORAGE_ROOT"] = "/ours"
        self.assertEqual(self.resolve(environ=environ).storage_root, "/ours")

    def test_other_servers(self) -> None:
        """Variables of servers that standalone does not use are ignored."""
        environ = {"RABBITMQ_SERVER": "nonsense", "ES_SERVER": "", "PATH": "/bin"}
        self.assertEqual(self.resolve(environ=environ), self.resolve())

    def test_toml_types(self) -> None:
        """A file may use TOML's own numbers and booleans, or strings."""
        own = self.resolve(file="nodes = 8\nrequire-digest = true\nrepair = false")
        text = self.resolve(file='nodes = "8"\nrequire-digest = "on"\nrepair = "no"')
        self.assertEqual(own, text)
        self.assertEqual((own.nodes, own.require_digest, own.repair), (8, True, False))

    def test_quorum_follows_the_code(self) -> None:
        """The default quorum is k + 1, or k without parity."""
        options: dict[str, str | None] = {"data-shards": "2", "parity-shards": "3"}
        self.assertEqual(self.resolve(options).write_quorum, 3)
        options["parity-shards"] = "0"
        self.assertEqual(self.resolve(options).write_quorum, 2)


class RefusalTests(ConfigCase):
    """One line: key, value, source, what is allowed."""

    def test_each_source_is_named(self) -> None:
        """The line says whether an option, a variable or a file is at fault."""
        self.assertEqual(
            self.refusal({"nodes": "x"}),
            "nodes = 'x' (option --nodes): allowed is a whole number from 1 to 256",
        )
        self.assertIn(
            "nodes = 'x' (environment OSTORE_NODES):",
            self.refusal(environ={"OSTORE_NODES": "x"}),
        )
        self.assertIn(
            "listen = '' (environment LISTEN_ADDRESS):",
            self.refusal(environ={"LISTEN_ADDRESS": ""}),
        )
        line = self.refusal(file="nodes = 1.5")
        self.assertIn(f"nodes = 1.5 (file {self.path}):", line)

    def test_every_setting_refuses(self) -> None:
        """No setting takes a line break, and every refusal names the key."""
        for self.role in ROLES:
            for setting in (*rows(self.role), CONFIG):
                for environ in ({setting.variable: "a\nb"}, {setting.variable: ""}):
                    line = self.refusal(environ=environ)
                    self.assertIn(f"{setting.key} = ", line)
                    self.assertIn(setting.variable, line)
                    self.assertIn(setting.kind.allowed, line)

    def test_unknown(self) -> None:
        """Unknown keys and OSTORE_ variables are refused, and the known ones named."""
        line = self.refusal(file='write-quorun = 5\n"a\\nb" = 1')
        self.assertIn("unknown setting write-quorun = 5", line)
        self.assertIn("write-quorum", line)
        self.assertIn("a\\nb", self.refusal(file='"a\\nb" = 1'))
        self.assertIn("table", self.refusal(file="[table]\nnodes = 6"))
        line = self.refusal(environ={"OSTORE_NODE": "6"})
        self.assertIn("unknown setting OSTORE_NODE = '6' (environment)", line)
        self.assertIn("OSTORE_NODES", line)

    def test_config_is_no_key_of_a_file(self) -> None:
        """A file cannot name another."""
        self.assertIn("unknown setting config", self.refusal(file='config = "b"'))

    def test_bad_files(self) -> None:
        """A file that is missing, a folder, not UTF-8 or not TOML is one line."""
        self.assertIn("No such file", self.refusal({"config": "/nowhere/x.toml"}))
        self.assertIn("Is a directory", self.refusal({"config": "/"}))
        self.assertIn("not TOML", self.refusal(file="nodes = \n\n"))
        path = self.mktemp()
        Path(path).write_bytes(b"\xff\xfe")
        self.assertIn("not UTF-8", self.refusal({"config": path}))

    def test_long_values_are_cut(self) -> None:
        """A line stays readable whatever the value."""
        self.assertLess(len(self.refusal({"nodes": "9" * 5000})), 200)

    def test_shards(self) -> None:
        """More than 32 shards are refused, whichever setting asks for them."""
        line = self.refusal({"parity-shards": "29"})
        self.assertIn("parity-shards = '29' (option --parity-shards)", line)
        self.assertIn("up to 32, not 4 + 29", line)
        line = self.refusal(environ={"OSTORE_DATA_SHARDS": "31"})
        self.assertIn("data-shards = '31'", line)

    def test_quorum(self) -> None:
        """The quorum lies between k and k + m."""
        for quorum in ("3", "7"):
            line = self.refusal({"write-quorum": quorum, "nodes": "9"})
            self.assertIn(f"write-quorum = '{quorum}'", line)
            self.assertIn("4 to 6", line)
        for quorum in ("4", "6"):
            settings = self.resolve({"write-quorum": quorum})
            self.assertEqual(settings.write_quorum, int(quorum))

    def test_nodes(self) -> None:
        """Fewer nodes than the quorum could never take a write."""
        self.assertEqual(self.resolve({"nodes": "5"}).nodes, 5)
        self.assertIn("5 (the write quorum) or more", self.refusal({"nodes": "4"}))
        line = self.refusal({"data-shards": "8"})
        self.assertIn("nodes (default): allowed is 9", line)

    def test_heartbeat(self) -> None:
        """A node must be able to be heard before it counts as down."""
        line = self.refusal({"heartbeat": "10s"})
        self.assertIn("heartbeat = '10s'", line)
        line = self.refusal({"node-timeout": "5s"})
        self.assertIn("node-timeout = '5s'", line)


class PathsTests(ConfigCase):
    """Paths, certificates among them."""

    def test_absolute(self) -> None:
        """Every path is absolute, whatever the service's folder is later."""
        here = str(Path.cwd())
        for self.role in ROLES:
            paths = [
                setting
                for setting in rows(self.role)
                if isinstance(setting.kind, kinds.Path)
            ]
            settings = self.resolve({setting.key: "x/../y" for setting in paths})
            for setting in paths:
                self.assertEqual(getattr(settings, setting.field), f"{here}/y")
            self.assertGreater(len(paths), 4)

    def test_metadata(self) -> None:
        """An SQLite file of one's own is allowed, and its path is absolute."""
        for self.role in ("standalone", "api"):
            settings = self.resolve({"metadata": "sqlite:x"})
            self.assertEqual(settings.metadata, f"{Path.cwd()}/x")
        self.assertIn("allowed is elastic", self.refusal({"metadata": "sqlite"}))

    def test_halves_of_a_certificate(self) -> None:
        """Certificate and key come together; what is missing is named."""
        for self.role in ROLES:
            line = self.refusal({"tls-certificate": "c"})
            self.assertTrue(line.startswith("tls-key is missing: "), line)
            line = self.refusal(environ={"OSTORE_TLS_KEY": "k"})
            self.assertTrue(line.startswith("tls-certificate is missing: "), line)
            settings = self.resolve({"tls-certificate": "/c", "tls-key": "/k"})
            self.assertEqual((settings.tls_certificate, settings.tls_key), ("/c", "/k"))


class ClusterTests(ConfigCase):
    """Settings of an api service, and what both services of a cluster share."""

    role = "api"

    def test_defaults(self) -> None:
        """Broker and search server of this machine, metadata in the latter."""
        settings = self.resolve()
        self.assertEqual(str(settings.listen), "127.0.0.1:8080")
        self.assertEqual(
            settings.rabbitmq_server, ("amqp://guest:guest@127.0.0.1:5672/",)
        )
        self.assertEqual(settings.es_server, ("http://127.0.0.1:9200",))
        self.assertIsNone(settings.metadata)
        self.assertIsNone(settings.access_log)
        self.assertEqual(settings.write_quorum, 5)

    def test_plain_names(self) -> None:
        """All four plain variables are read, each by the roles that use it."""
        environ = {
            "LISTEN_ADDRESS": "h:1",
            "STORAGE_ROOT": "/a, /b",
            "RABBITMQ_SERVER": "amqp://u:p@one/v, amqps://two:5671",
            "ES_SERVER": "one:9200, https://two:9201",
        }
        api = self.resolve(environ=environ)
        self.assertEqual(str(api.listen), "h:1")
        self.assertEqual(api.rabbitmq_server, ("amqp://u:p@one/v", "amqps://two:5671"))
        self.assertEqual(api.es_server, ("http://one:9200", "https://two:9201"))
        secret = {"cluster-secret-file": "/s"}
        data = resolve("data", secret, environ)
        self.assertEqual(str(data.listen), "h:1")
        self.assertEqual(data.roots, ("/a", "/b"))
        self.assertEqual(data.rabbitmq_server, api.rabbitmq_server)
        environ |= {"OSTORE_ES_SERVER": "three:1", "OSTORE_RABBITMQ_SERVER": "amqp://x"}
        api = self.resolve(environ=environ)
        self.assertEqual(api.es_server, ("http://three:1",))
        self.assertEqual(api.rabbitmq_server, ("amqp://x",))

    def test_lists(self) -> None:
        """A file may have a list, in which a comma is an ordinary character."""
        file = 'es-server = ["one:1", "two:2"]\nrabbitmq-server = "amqp://a, amqp://b"'
        settings = self.resolve(file=file)
        self.assertEqual(settings.es_server, ("http://one:1", "http://two:2"))
        self.assertEqual(settings.rabbitmq_server, ("amqp://a", "amqp://b"))
        self.role = "data"
        settings = resolve(
            "data", {"config": self.file('storage-root = ["/a,b"]')}, MISSING["api"]
        )
        self.assertEqual(settings.roots, ("/a,b",))
        for wrong in ("[]", '["/a", ""]', '[["/a"]]', "1"):
            line = self.refusal(file=f"advertise = {wrong}")
            self.assertIn("advertise = ", line)

    def test_shared_file(self) -> None:
        """What a role has no use for is ignored in a file and the environment."""
        file = self.file(
            'nodes = 1\nes-server = "no such"\nstorage-root = "/mnt/1"\n'
            'zone = "a,b,c"\nwrite-quorum = 99\ncluster-secret-file = "/s"\n'
        )
        environ = {"OSTORE_CONFIG": file, "ES_SERVER": "not this\neither"}
        self.assertEqual(
            resolve("data", {"zone": "a"}, environ),
            resolve(
                "data",
                {"zone": "a", "storage-root": "/mnt/1", "cluster-secret-file": "/s"},
                {},
            ),
        )
        line = self.refusal({"zone": "a", "config": file})
        self.assertIn("es-server = 'no such'", line)

    def test_the_secret_is_missing(self) -> None:
        """Neither service makes up a secret of its own."""
        for role in ("api", "data"):
            error = self.assertRaises(StartError, resolve, role, {}, {})
            self.assertTrue(str(error).startswith("cluster-secret-file is missing: "))

    def test_passwords(self) -> None:
        """No refusal shows a password, however the URL is broken."""
        for url in (
            "amqp://ann:hunter2@h:99999",
            "amqp://ann:hunter2@",
            "amqp://ann:/hunter2@h:1",
            "amqp://ann:hun@ter2@h#x",
            "amqp:/ann:hunter2@h",
            "//ann:hunter2@h",
            "ann:hunter2@h:x",
            "amqp://a,amqp://ann:hunter2@b:x,amqp://ann:hunter2@c:x",
            "http://ann://hunter2@h?",
            "http://ann:hunter2@h\n",
        ):
            for source in (
                self.refusal({"rabbitmq-server": url, "es-server": url}),
                self.refusal(environ={"ES_SERVER": url, "RABBITMQ_SERVER": url}),
                self.refusal(file=f"es-server = [{json.dumps(url)}]\nlisten = 1"),
                self.refusal(file=f"es-server = {{u = {json.dumps(url)}}}"),
                self.refusal(environ={"OSTORE_RABBIT": url}),
            ):
                self.assertNotIn("ter2", source)
                self.assertNotIn("hun", source)
        line = self.refusal({"rabbitmq-server": "amqp://ann:hunter2@h:99999/v"})
        self.assertIn("rabbitmq-server = 'amqp://***@h:99999/v' (option", line)
        line = self.refusal({"es-server": "ann:hunter2@h:99999"})
        self.assertIn("es-server = '***@h:99999' (option", line)

    def test_settings_show_no_password(self) -> None:
        """What prints settings prints none either."""
        settings = self.resolve(
            {"rabbitmq-server": "amqp://u:hunter2@h", "es-server": "u:hunter2@h:1"}
        )
        self.assertNotIn("hunter2", repr(settings))


class DataTests(ConfigCase):
    """Settings of a data service: a node for each root."""

    role = "data"

    def data(self, **options: str) -> Settings:
        """The settings of nodes in /a, /b and /c."""
        given = {key.replace("_", "-"): value for key, value in options.items()}
        return self.resolve({"storage-root": "/a,/b,/c", **given})

    def refused(self, **options: str) -> str:
        """The line that refuses them."""
        error = self.assertRaises(StartError, self.data, **options)
        return str(error)

    def test_defaults(self) -> None:
        """One zone for all, which is the machine; nothing to advertise."""
        settings = self.data()
        self.assertEqual(str(settings.listen), "127.0.0.1:8081")
        self.assertEqual(settings.roots, ("/a", "/b", "/c"))
        self.assertEqual(settings.zone, (socket.gethostname()[:64],) * 3)
        self.assertEqual(settings.advertise, ())
        self.assertTrue(settings.durable)

    def test_the_root_is_missing(self) -> None:
        """There is no root by default."""
        error = self.assertRaises(StartError, resolve, "data", {}, MISSING["api"])
        self.assertTrue(str(error).startswith("storage-root is missing: "))

    def test_in_the_order_of_the_roots(self) -> None:
        """Zones and URLs belong to the roots in their order; one zone is for all."""
        urls = ("http://a:1", "https://b:2", "http://[::1]:3")
        settings = self.data(zone="x,y,x", advertise=",".join(urls))
        self.assertEqual(settings.zone, ("x", "y", "x"))
        self.assertEqual(settings.advertise, urls)
        self.assertEqual(self.data(zone="x").zone, ("x", "x", "x"))
        self.assertIn("zone = 'x,y' (option --zone)", self.refused(zone="x,y"))
        self.assertIn("3 storage roots", self.refused(advertise="http://a:1"))

    def test_twice(self) -> None:
        """A root or a URL cannot be that of two nodes."""
        line = self.refused(storage_root="/a,/b/../a")
        self.assertIn("storage-root = '/a,/b/../a'", line)
        self.assertIn("each path once", line)
        line = self.refused(advertise="http://a:1,http://b:1,HTTP://A:1/")
        self.assertIn("each URL once", line)

    def test_ports_in_a_row(self) -> None:
        """All the ports must exist; port 0 gives each node any."""
        self.assertEqual(self.data(listen="h:65533").listen.port, 65533)
        line = self.refused(listen="h:65534")
        self.assertIn("listen = 'h:65534' (option --listen)", line)
        self.assertIn("3 in a row", line)
        self.assertEqual(self.data(listen="h:0").listen.port, 0)

    def test_every_address(self) -> None:
        """0.0.0.0 is another machine on each machine: it must not be advertised."""
        for listen in ("0.0.0.0:8081", "[::]:8081"):
            line = self.refused(listen=listen)
            self.assertTrue(line.startswith("advertise is missing: "), line)
            self.assertIn(listen, line)
            urls = "http://a:1,http://b:1,http://c:1"
            self.assertTrue(self.data(listen=listen, advertise=urls).advertise)


class PapersTests(ConfigCase):
    """Sample files and documentation hold every setting."""

    def test_settings_and_table(self) -> None:
        """Every row of the table has its field in Settings, and the other way round."""
        self.assertEqual(
            {setting.field for setting in SETTINGS},
            {field.name for field in attrs.fields(Settings)},
        )

    def test_one_row(self) -> None:
        """A role has one row of each key, and a key one variable for all roles."""
        for role in ROLES:
            keys = [setting.key for setting in rows(role)]
            self.assertEqual(len(keys), len(set(keys)))
        variables = {(setting.key, setting.plain) for setting in SETTINGS}
        self.assertEqual(len(variables), len({setting.key for setting in SETTINGS}))

    def test_samples(self) -> None:
        """The sample of a role names every key of it, and means the defaults.

        What has no default is shown by an example.
        """
        for self.role in ROLES:
            path = CHECKOUT / f"etc/{self.role}.toml.sample"
            sample = path.read_text("utf-8")
            self.assertEqual(set(tomllib.loads(sample)), REQUIRED[self.role])
            uncommented = "\n".join(
                line.removeprefix("# ") for line in sample.splitlines() if " = " in line
            )
            shown = tomllib.loads(uncommented)
            self.assertEqual(set(shown), {setting.key for setting in rows(self.role)})
            self.resolve(file=uncommented)
            example = {s.key for s in rows(self.role) if s.default in UNSAID}
            defaults = "\n".join(
                f"{key} = {json.dumps(value)}"
                for key, value in shown.items()
                if key not in example
            )
            self.assertEqual(self.resolve(file=defaults), self.resolve())

    def test_documentation(self) -> None:
        """docs/configuration.md has a row for every key, with roles and default."""
        text = (CHECKOUT / "docs/configuration.md").read_text("utf-8")
        rows = {
            (cells[1].strip(" `"), role): cells[3].replace("`", "").strip()
            for line in text.splitlines()
            if len(cells := line.split("|")) == 7
            for role in cells[2].replace("all", ", ".join(ROLES)).strip().split(", ")
        }
        for setting in SETTINGS:
            for role in setting.roles:
                self.assertEqual(
                    rows.pop((setting.key, role), None),
                    SAID.get(setting.default, setting.default.strip("<>")),
                    setting.key,
                )
        self.assertEqual(set(rows), {("key", "used by"), ("---", "---")})

    def test_variables(self) -> None:
        """docs/configuration.md says for what each plain variable stands."""
        text = (CHECKOUT / "docs/configuration.md").read_text("utf-8")
        for setting in SETTINGS:
            if setting.plain:
                self.assertIn(f"| `{setting.plain}` | `{setting.key}` |", text)
