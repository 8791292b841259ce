"""The command line of a role."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ostore.service.kinds import Address
from ostore.service.options import StandaloneOptions
from ostore.service.settings import CONFIG, SETTINGS, Settings


class OptionsTests(SynchronousTestCase):
    """`twistd ostore-standalone ...`."""

    def setUp(self) -> None:
        """No setting comes from the environment of the test run."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OSTORE_")}
        self.patch(os, "environ", environ)

    def parse(self, *words: str) -> Settings:
        """The settings of a command line."""
        options = StandaloneOptions()
        options.parseOptions(words)
        return options.settings

    def refusal(self, *words: str) -> str:
        """The one line that a command line ends in."""
        end = self.assertRaises(SystemExit, self.parse, *words)
        line = end.code
        assert isinstance(line, str)
        self.assertTrue(line.isprintable(), line)
        self.assertTrue(line.startswith("ostore-standalone: "), line)
        return line

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
        line = self.refusal("--keep-versions", "5")
        self.assertIn("--keep-versions", line)
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
        usage = " ".join(StandaloneOptions().getUsage(width=200).split())
        for setting in (*SETTINGS, CONFIG):
            self.assertIn(f"--{setting.key}=", usage)
            self.assertIn(setting.kind.allowed, usage)
            self.assertIn(f"[default: {setting.default.strip('<>')}]", usage)
