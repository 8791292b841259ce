"""Settings: where they come from, and how they are refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ostore.service.config import resolve
from ostore.service.failing import StartError
from ostore.service.kinds import Address
from ostore.service.settings import CONFIG, SETTINGS, Settings

CHECKOUT = Path(__file__).parents[2]


class ConfigCase(SynchronousTestCase):
    """Settings of `standalone` from options, environment and a file's text."""

    def resolve(
        self,
        options: dict[str, str | None] | None = None,
        environ: dict[str, str] | None = None,
        file: str | None = None,
    ) -> Settings:
        """What comes of them; the file goes in as an option."""
        given = dict(options or {})
        if file is not None:
            self.path = self.mktemp()
            Path(self.path).write_text(file, "utf-8")
            given["config"] = self.path
        return resolve("standalone", given, environ or {})

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
                orphan_grace=3600,
                rebuild_delay=600,
                repair=True,
                metadata=f"{root}/metadata.sqlite",
                require_digest=False,
                durability="strict",
                cluster_secret_file=f"{root}/secret",
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
        for setting in (*SETTINGS, CONFIG):
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


class PapersTests(ConfigCase):
    """Sample file and documentation hold every setting."""

    def test_settings_and_table(self) -> None:
        """Every row of the table has its field in Settings, and the other way round."""
        self.assertEqual(
            {setting.field for setting in SETTINGS},
            {field.name for field in attrs.fields(Settings)},
        )

    def test_sample(self) -> None:
        """The sample names every key, and means the defaults."""
        sample = (CHECKOUT / "etc/standalone.toml.sample").read_text("utf-8")
        self.assertEqual(tomllib.loads(sample), {})
        uncommented = "\n".join(
            line.removeprefix("# ") for line in sample.splitlines() if " = " in line
        )
        self.assertEqual(
            set(tomllib.loads(uncommented)), {setting.key for setting in SETTINGS}
        )
        self.assertEqual(self.resolve(file=uncommented), self.resolve())

    def test_documentation(self) -> None:
        """docs/configuration.md has a line for every key, with its default."""
        text = (CHECKOUT / "docs/configuration.md").read_text("utf-8")
        rows = {
            cells[1].strip(" `"): cells[2].replace("`", "").strip()
            for line in text.splitlines()
            if len(cells := line.split("|")) > 4
        }
        for setting in SETTINGS:
            if setting.key == "cluster-secret-file":
                default = "secret in storage-root"
            else:
                default = setting.default.strip("<>")
            self.assertEqual(rows.get(setting.key), default, setting.key)
