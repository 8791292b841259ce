"""Settings, read from options, environment and a TOML file.

An option stands above the environment, that above the file, that above the
default. Every refusal is one line that names key, value, source and what is allowed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ostore.model.layouts import MAX_SHARDS
from ostore.service.failing import StartError
from ostore.service.settings import CONFIG, PREFIX, SETTINGS, Setting, Settings, rows


@attrs.frozen
class Given:
    """A value as it was found, and where."""

    raw: object
    source: str


def resolve(
    role: str, options: Mapping[str, str | None], environ: Mapping[str, str]
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
    return _complete(values, found)


def _read(setting: Setting, given: Given) -> Any:
    try:
        return setting.kind.read(given.raw)
    except ValueError:
        raise _refusal(setting.key, given, setting.kind.allowed) from None


def _refusal(key: str, given: Given | None, allowed: str) -> StartError:
    if given is None:
        return StartError(f"{key} (default): allowed is {allowed}")
    value = ascii(given.raw)
    if len(value) > 80:
        value = value[:77] + "..."
    return StartError(f"{key} = {value} ({given.source}): allowed is {allowed}")


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
        elif name.startswith(PREFIX):
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
    return _refusal(
        f"unknown setting {key if key.isprintable() else ascii(key)}",
        Given(value, source),
        ", ".join(known),
    )


def _complete(values: dict[str, Any], found: Mapping[str, Given]) -> Settings:
    """Fill in the computed defaults; refuse what does not fit together."""
    data, parity = values["data_shards"], values["parity_shards"]
    if data + parity > MAX_SHARDS:
        key = "parity-shards" if "parity-shards" in found else "data-shards"
        raise _refusal(
            key,
            found.get(key),
            f"data-shards + parity-shards up to {MAX_SHARDS}, not {data} + {parity}",
        )
    quorum = values.setdefault("write_quorum", min(data + 1, data + parity))
    if not data <= quorum <= data + parity:
        raise _refusal(
            "write-quorum",
            found.get("write-quorum"),
            f"data-shards to data-shards + parity-shards: {data} to {data + parity}",
        )
    if values["nodes"] < quorum:
        raise _refusal(
            "nodes", found.get("nodes"), f"{quorum} (the write quorum) or more"
        )
    if values["node_timeout"] <= values["heartbeat"]:
        key = "node-timeout" if "node-timeout" in found else "heartbeat"
        raise _refusal(
            key,
            found.get(key),
            "a node-timeout longer than the heartbeat: not"
            f" {values['node_timeout']:g}s with {values['heartbeat']:g}s",
        )
    root = values["storage_root"] = os.path.abspath(values["storage_root"])  # noqa: PTH100 - links in the path stay as they were given
    values["metadata"] = _under(root, values["metadata"], "metadata.sqlite")
    values["cluster_secret_file"] = _under(
        root, values.get("cluster_secret_file"), "secret"
    )
    return Settings(**values)


def _under(root: str, given: str | None, usual: str) -> str:
    return os.path.join(root, usual) if given is None else os.path.abspath(given)  # noqa: PTH100 - as above
