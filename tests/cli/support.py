"""The command run in this process, and a real service for it."""

from __future__ import annotations

import atexit
import functools
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.main import run
from ostore.cli.session import World
from tests.support.child import serve

NOW = 1_800_000_000.0


@attrs.frozen
class Result:
    """What a command left behind."""

    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.raw.decode("utf-8")

    @property
    def items(self) -> list[Any]:
        """Standard output as lines of JSON."""
        return [json.loads(line) for line in self.raw.splitlines()]


class Stream(io.TextIOWrapper):
    """A standard stream in memory, which may say that it is a terminal."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)

    def taken(self) -> bytes:
        """All that was written."""
        held = self.detach()
        assert isinstance(held, io.BytesIO)
        return held.getvalue()


class CommandTestCase(SynchronousTestCase):
    """A folder of its own that is the current one, and `ostore` to be run in it."""

    endpoint = "http://127.0.0.1:1"

    def wall(self) -> float:
        """The command's clock."""
        return NOW

    def setUp(self) -> None:
        """A fresh folder; waits are noted, not waited."""
        self.folder = Path(tempfile.mkdtemp(prefix="ostore-cli-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.waits: list[float] = []

    @property
    def environ(self) -> dict[str, str]:
        """What the command sees of the environment."""
        return {
            "HOME": str(self.folder / "home"),
            "XDG_STATE_HOME": str(self.folder / "home/state"),
            "XDG_CONFIG_HOME": str(self.folder / "home/config"),
            "OSTORE_ENDPOINT": self.endpoint,
        }

    def ostore(
        self, *words: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> Result:
        """Run the command."""
        chance = random.Random(7)
        world = World(
            {**self.environ, **(environ or {})},
            self.wall,
            self.waits.append,
            chance.random,
        )
        out, err, given = Stream(), Stream(), Stream(stdin)
        with (
            mock.patch.object(sys, "stdout", out),
            mock.patch.object(sys, "stderr", err),
            mock.patch.object(sys, "stdin", given),
        ):
            status = run(words, world)
        return Result(status, out.taken(), err.taken().decode("utf-8"))

    def done(self, *words: str, stdin: bytes = b"") -> Result:
        """Run the command, which must succeed."""
        result = self.ostore(*words, stdin=stdin)
        self.assertEqual((result.status, result.err), (0, ""), words)
        return result

    def file(self, name: str, content: bytes) -> Path:
        """A file in the current folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def leftovers(self) -> list[str]:
        """Hidden files of transfers below the current folder."""
        return sorted(path.name for path in self.folder.rglob(".ostore-*"))


def shared() -> int:
    """The port of one real standalone, which lives as long as this process."""
    return _shared()[0]


def shared_secret() -> Path:
    """Its cluster secret."""
    return _shared()[1] / "secret"


@functools.cache
def _shared() -> tuple[int, Path]:
    root = Path(tempfile.mkdtemp(prefix="ostore-cli-service-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    service = serve(root / "data")
    atexit.register(service.close)
    return service.ready(), root / "data"


class ServiceTestCase(CommandTestCase):
    """With a real standalone, in which no names are left."""

    def setUp(self) -> None:
        """Names of other tests are gone."""
        super().setUp()
        self.endpoint = f"http://127.0.0.1:{shared()}"
        for item in self.ostore("ls", "-r", "--json").items:
            self.ostore("rm", "-q", "--", item["name"])
