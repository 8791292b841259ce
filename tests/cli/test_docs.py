"""What the command's page says that can be checked against it."""

from __future__ import annotations

import re
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.main import ostore
from ostore.cli.settings import KEYS, VARIABLES

PAGE = Path(__file__).parents[2] / "docs/cli.md"


def commands() -> list[tuple[str, click.Command]]:
    """Every verb and those below it, with their words."""
    found: list[tuple[str, click.Command]] = []
    waiting: list[tuple[str, click.Command]] = [("", ostore)]
    while waiting:
        words, command = waiting.pop()
        found.append((words, command))
        if isinstance(command, click.Group):
            ctx = click.Context(command)
            for name in command.list_commands(ctx):
                below = command.get_command(ctx, name)
                assert below is not None
                waiting.append((f"{words} {name}".strip(), below))
    return found


class PageTests(SynchronousTestCase):
    """docs/cli.md."""

    def setUp(self) -> None:
        """Read it."""
        self.text = PAGE.read_text("utf-8")

    def test_verbs(self) -> None:
        """Every verb stands in a heading, and its way of writing in the text."""
        headings = " ".join(re.findall("^### (.*)$", self.text, re.MULTILINE))
        verbs = [words for words, _ in commands() if words and " " not in words]
        self.assertEqual(sorted(re.findall(r"[\w-]+", headings)), sorted(verbs))

    def test_options(self) -> None:
        """Every option of every verb is there."""
        for words, command in commands():
            for param in command.params:
                if isinstance(param, click.Option):
                    long = max((*param.opts, *param.secondary_opts), key=len)
                    self.assertIn(long, self.text, words)

    def test_settings(self) -> None:
        """Every key and every variable is there."""
        for key in (*KEYS, *VARIABLES):
            self.assertIn(f"`{key}`", self.text)

    def test_help(self) -> None:
        """Every command explains itself, and shows examples."""
        for words, command in commands():
            self.assertTrue(command.help, words)
            if not isinstance(command, click.Group) or not words:
                self.assertIn("Examples:", command.epilog or "", words)
            for param in command.params:
                if isinstance(param, click.Option):
                    self.assertTrue(param.help, (words, param.name))
