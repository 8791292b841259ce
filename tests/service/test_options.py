"""The command line of a role."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ostore.service.kinds import Address
from ostore.service.options import (
    ApiOptions,
    DataOptions,
    RoleOptions,
    StandaloneOptions,
)
from ostore.service.settings import CONFIG, SETTINGS, Settings, rows

ROLES: tuple[type[RoleOptions], ...] = (StandaloneOptions, ApiOptions, DataOptions)


class OptionsCase(SynchronousTestCase):
    """The command line of a role."""

    options: type[RoleOptions] = StandaloneOptions

    def setUp(self) -> None:
        """No setting comes from the environment of the test run."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OSTORE_")}
        self.patch(os, "environ", environ)

    def parse(self, *words: str) -> Settings:
        """The settings of a command line."""
        options = self.options()
        options.parseOptions(words)
        return options.settings

    def refusal(self, *words: str) -> str:
        """The one line that a command line ends in."""
        end = self.assertRaises(SystemExit, self.parse, *words)
        line = end.code
        assert isinstance(line, str)
        self.assertTrue(line.isprintable(), line)
        self.assertTrue(line.startswith(f"ostore-{self.options.role}: "), line)
        return line


class OptionsTests(OptionsCase):
    """`twistd ostore-standalone ...`, and what all roles share."""

    def test_values(self) -> None:
        """Options take their values behind a space or an equals sign."""
        settings = self.parse("--listen", "[::1]:0", "--nodes=8", "--laggard=2s")
        self.assertEqual(settings.listen, Address("::1", 0))
        self.assertEqual((settings.nodes, settings.laggard), (8, 2))

    def test_environment(self) -> None:
        """What no option says comes from the environment."""
        os.environ["OSTORE_NODES"] = "9"
        self.assertEqual(self.parse("--laggard", "2s").nodes, 9)
        self.assertEqual(self.parse("--nodes", "8").nodes, 8)

    def test_switches(self) -> None:
        """A switch alone means on; on and off may follow it either way."""
        for words, value in (
            ((), False),
            (("--require-digest",), True),
            (("--require-digest", "--nodes", "8"), True),
            (("--require-digest", "on"), True),
            (("--require-digest", "OFF"), False),
            (("--require-digest=off",), False),
        ):
            self.assertIs(self.parse(*words).require_digest, value, words)
        self.assertIs(self.parse("--repair=off", "--require-digest").repair, False)

    def test_refusals(self) -> None:
        """Unknown options, missing values, stray words: one line each."""
        line = self.refusal("--keep-visions", "5")
        self.assertIn("--keep-visions", line)
        self.assertIn(
            "require-digest = 'maybe' (option --require-digest): allowed is on or off",
            self.refusal("--require-digest", "maybe"),
        )
        self.assertIn("--write-quorum", line)
        self.assertIn("allowed is a whole number", self.refusal("--nodes"))
        self.assertIn("'start'", self.refusal("start"))
        self.assertIn("'off'", self.refusal("--repair", "on", "off"))
        self.assertIn(
            "require-digest = 'maybe'", self.refusal("--require-digest=maybe")
        )
        self.assertIn("(option --config)", self.refusal("--config", ""))

    def test_help(self) -> None:
        """--help names every setting with its default and what is allowed."""
        for options in ROLES:
            usage = options().getUsage(width=200)
            usage = " ".join(usage.split())
            for setting in (*rows(options.role), CONFIG):
                self.assertIn(f"--{setting.key}= {setting.help}", usage)
                self.assertIn(setting.kind.allowed, usage)
                self.assertIn(f"[default: {setting.default.strip('<>')}]", usage)

    def test_of_no_use(self) -> None:
        """An option of another role is refused, and the role's own are named."""
        keys = {setting.key for setting in SETTINGS}
        for self.options in ROLES:
            own = {setting.key for setting in rows(self.options.role)}
            for key in keys - own:
                line = self.refusal(f"--{key}=x")
                self.assertIn(f"option --{key} not recognized: allowed are", line)
                for other in own:
                    self.assertIn(f"--{other}", line)
            self.assertTrue(keys - own)

    def test_no_password(self) -> None:
        """A URL in the wrong place does not show its password."""
        for self.options in ROLES:
            for words in (
                ("amqp://ann:hunter2@h",),
                ("--rabitmq=amqp://ann:hunter2@h",),
                ("--durability", "amqp://ann:hunter2@h"),
            ):
                self.assertNotIn("hunter2", self.refusal(*words))


class RepeatedTests(OptionsCase):
    """Options that may be given more than once: `twistd ostore-data ...`."""

    options: type[RoleOptions] = DataOptions

    def data(self, *words: str) -> Settings:
        """Settings with a secret."""
        return self.parse("--cluster-secret-file=/s", *words)

    def test_roots(self) -> None:
        """Each adds to those before it, in any spelling that the parser takes."""
        settings = self.data(
            *("--storage-root", "/a", "--zone=x", "--storage-root=/b"),
            *("--storage-r", "/c,/d", "--zone", "y,z", "--zone", "x"),
        )
        self.assertEqual(settings.roots, ("/a", "/b", "/c", "/d"))
        self.assertEqual(settings.zone, ("x", "y", "z", "x"))

    def test_urls(self) -> None:
        """Brokers, search servers and advertised URLs too."""
        settings = self.data(
            *("--storage-root=/a", "--storage-root=/b"),
            *("--advertise", "http://a:1", "--advertise", "http://b:1"),
            *("--rabbitmq-server", "amqp://a", "--rabbitmq-server", "amqp://b"),
        )
        self.assertEqual(settings.advertise, ("http://a:1", "http://b:1"))
        self.assertEqual(settings.rabbitmq_server, ("amqp://a", "amqp://b"))
        self.options = ApiOptions
        settings = self.data("--es-server", "a:1", "--es-server", "b:2")
        self.assertEqual(settings.es_server, ("http://a:1", "http://b:2"))

    def test_above_the_environment(self) -> None:
        """Options replace what the environment has, they do not add to it."""
        os.environ["STORAGE_ROOT"] = "/x,/y"
        self.assertEqual(self.data().roots, ("/x", "/y"))
        self.assertEqual(self.data("--storage-root=/a").roots, ("/a",))

    def test_afresh(self) -> None:
        """One command line knows nothing of another."""
        for _ in range(2):
            self.assertEqual(self.data("--storage-root=/a").roots, ("/a",))

    def test_refusals(self) -> None:
        """No value, an empty one among others: one line with key and values."""
        self.assertIn("--zone requires argument", self.refusal("--zone"))
        line = self.refusal("--zone", "a", "--zone", "")
        self.assertIn("zone = 'a,' (option --zone): allowed is", line)
        line = self.refusal("--zone", "")
        self.assertIn("zone = '' (option --zone): allowed is", line)
