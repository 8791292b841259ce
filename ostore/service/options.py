"""The command line of each role, made from the table of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.python import usage

from ostore import __version__
from ostore.service.config import resolve
from ostore.service.failing import StartError
from ostore.service.kinds import Several, Switch
from ostore.service.refusal import shown
from ostore.service.settings import CONFIG, Setting, Settings, rows


class RoleOptions(usage.Options):
    """Reads the options of one role; twistd makes it and calls parseOptions.

    Whatever is refused ends the process with one line and status 1: twistd itself
    would print a page and exit with 0. Afterwards `settings` holds the result.
    """

    role: ClassVar[str]
    optParameters: ClassVar[list[tuple[str, None, None, str]]]
    settings: Settings
    longdesc = (
        "Settings: option, else environment (OSTORE_KEY for --key), else the TOML"
        " file, else the default. A switch without a value means on."
    )

    def __init_subclass__(cls) -> None:
        """An option for each setting of the role; a method where it may be repeated."""
        settings = (*rows(cls.role), CONFIG)
        repeated = [s for s in settings if isinstance(s.kind, Several)]
        for setting in repeated:
            setattr(cls, f"opt_{setting.field}", _noted(setting))
        cls.optParameters = [
            (s.key, None, None, _help(s)) for s in settings if s not in repeated
        ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read `options` (twistd gives them), environment and file."""
        try:
            super().parseOptions(self._spelled_out(options or ()))  # type: ignore[no-untyped-call] # Twisted has none
        except usage.UsageError as error:
            line = f"{error}: allowed {self._allowed(str(error))}"
            raise SystemExit(f"ostore-{self.role}: {line}") from None
        except StartError as error:
            raise SystemExit(f"ostore-{self.role}: {error}") from None

    def parseArgs(self, *words: str) -> None:
        """Refuse anything that is not an option."""
        if words:
            raise StartError(
                f"{shown(words[0])} is not an option: allowed are options, --help lists them"
            )

    def postOptions(self) -> None:
        """Set `settings`."""
        given: dict[str, Any] = {key: self[key] for key in self if key != "version"}
        self.settings = resolve(self.role, given, os.environ)

    def opt_version(self) -> None:
        """Print the version and end."""
        print(f"ostore {__version__}")  # noqa: T201 - asked for on the command line
        raise SystemExit(0)

    def _allowed(self, complaint: str) -> str:
        """What is allowed where usage.Options complained."""
        settings = {f"--{s.key}": s.kind for s in (*rows(self.role), CONFIG)}
        for word in complaint.split():
            if word in settings:
                return f"is {settings[word].allowed}"
        return "are " + ", ".join(sorted(settings))

    def _spelled_out(self, words: Sequence[str]) -> list[str]:
        """The words with its value, or `on`, joined to each switch; none has another."""
        switches = {
            f"--{setting.key}"
            for setting in rows(self.role)
            if isinstance(setting.kind, Switch)
        }
        result: list[str] = []
        for word in words:
            if result and result[-1] in switches:
                alone = word.startswith("-")
                result[-1] += "=on" if alone else f"={word}"
                if not alone:
                    continue
            result.append(word)
        if result and result[-1] in switches:
            result[-1] += "=on"
        return result


def _noted(setting: Setting) -> Callable[[RoleOptions, str], None]:
    def note(self: RoleOptions, value: str) -> None:
        before = f"{self[setting.key]}," if setting.key in self else ""
        self[setting.key] = before + value

    note.__doc__ = _help(setting)
    return note


def _help(setting: Setting) -> str:
    default = setting.default.strip("<>")
    return f"{setting.help} ({setting.kind.allowed}) [default: {default}]"


class StandaloneOptions(RoleOptions):
    """`twistd ostore-standalone`."""

    role = "standalone"


class ApiOptions(RoleOptions):
    """`twistd ostore-api`."""

    role = "api"


class DataOptions(RoleOptions):
    """`twistd ostore-data`."""

    role = "data"
