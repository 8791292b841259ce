"""Settings, read from options, environment and a TOML file.

An option stands above the environment, that above the file, that above the
default. Every refusal is one line that names key, value, source and what is allowed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostore.cli.settings import VARIABLES as OF_THE_COMMAND
from ostore.service.failing import StartError
from ostore.service.fitting import complete
from ostore.service.refusal import Given, refusal
from ostore.service.settings import CONFIG, PREFIX, SETTINGS, Setting, Settings, rows


def resolve(
    role: str, options: Mapping[str, object], environ: Mapping[str, str]
) -> Settings:
    """The settings of a role; `options` by key, None where not given.

    Raises StartError with one line that names key, value, source and what is
    allowed.
    """
    from_environ = _environment(environ)
    found: dict[str, Given] = {}
    file = options.get(CONFIG.key)
    if file is not None:
        found = _file(_read(CONFIG, Given(file, f"option --{CONFIG.key}")))
    elif CONFIG.key in from_environ:
        found = _file(_read(CONFIG, from_environ[CONFIG.key]))
    found |= from_environ
    for key, raw in options.items():
        if raw is not None:
            found[key] = Given(raw, f"option --{key}")
    values: dict[str, Any] = {}
    for setting in rows(role):
        given = found.get(setting.key)
        if given is not None:
            values[setting.field] = _read(setting, given)
        elif not setting.computed:
            values[setting.field] = setting.kind.read(setting.default)
    return complete(role, values, found)


def _read(setting: Setting, given: Given) -> Any:
    try:
        return setting.kind.read(given.raw)
    except ValueError:
        raise refusal(setting.key, given, setting.kind.allowed) from None


def _environment(environ: Mapping[str, str]) -> dict[str, Given]:
    known = {setting.variable: setting.key for setting in (*SETTINGS, CONFIG)}
    plain = {setting.plain: setting.key for setting in SETTINGS if setting.plain}
    found: dict[str, Given] = {}
    for name, key in plain.items():
        if name in environ:
            found[key] = Given(environ[name], f"environment {name}")
    for name, value in environ.items():
        if name in known:
            found[known[name]] = Given(value, f"environment {name}")
        elif name.startswith(PREFIX) and name not in OF_THE_COMMAND:
            raise _unknown(name, value, "environment", sorted(known))
    return found


def _file(path: str) -> dict[str, Given]:
    source = f"file {path}"
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise StartError(f"config = {path!a}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"config = {path!a}: not UTF-8, allowed is TOML") from None
    except tomllib.TOMLDecodeError as error:
        line = " ".join(str(error).split())
        raise StartError(f"config = {path!a}: not TOML: {line}") from None
    known = {setting.key for setting in SETTINGS}
    for key, value in table.items():
        if key not in known:
            raise _unknown(key, value, source, sorted(known))
    return {key: Given(value, source) for key, value in table.items()}


def _unknown(key: str, value: object, source: str, known: list[str]) -> StartError:
    return refusal(
        f"unknown setting {key if key.isprintable() else ascii(key)}",
        Given(value, source),
        ", ".join(known),
    )
