"""What settings mean together: computed defaults, and what does not fit."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from ostore.model.layouts import MAX_SHARDS
from ostore.service.failing import StartError
from ostore.service.refusal import Given, refusal
from ostore.service.settings import DATA, ENGINE, STANDALONE, Settings

_PATHS = (
    "metadata",
    "cluster_secret_file",
    "access_log",
    "tls_certificate",
    "tls_key",
    "tls_ca",
    "es_api_key_file",
)
_EVERY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not listened on
"""Hosts that mean every address of this machine: on another machine, another one."""


def complete(role: str, values: dict[str, Any], found: Mapping[str, Given]) -> Settings:
    """Fill in the computed defaults; refuse what does not fit together."""
    if role in ENGINE:
        _complete_engine(values, found)
    if role in STANDALONE:
        _complete_standalone(values, found)
    else:
        _complete_cluster(values, found)
    if role in DATA:
        _complete_data(values, found)
    for key in _PATHS:
        if values.get(key) is not None:
            values[key] = _absolute(values[key])
    if (values.get("tls_certificate") is None) != (values.get("tls_key") is None):
        key = "tls-key" if "tls-certificate" in found else "tls-certificate"
        raise StartError(
            f"{key} is missing: allowed are tls-certificate and tls-key together"
        )
    return Settings(**values)


def _complete_engine(values: dict[str, Any], found: Mapping[str, Given]) -> None:
    if values.get("workers", 1) > 1 and values.get("metadata") is not None:
        raise refusal(
            "workers",
            found.get("workers"),
            "1 with metadata in SQLite: one api process",
        )
    data, parity = values["data_shards"], values["parity_shards"]
    if data + parity > MAX_SHARDS:
        key = "parity-shards" if "parity-shards" in found else "data-shards"
        raise refusal(
            key,
            found.get(key),
            f"data-shards + parity-shards up to {MAX_SHARDS}, not {data} + {parity}",
        )
    quorum = values.setdefault("write_quorum", min(data + 1, data + parity))
    if not data <= quorum <= data + parity:
        raise refusal(
            "write-quorum",
            found.get("write-quorum"),
            f"data-shards to data-shards + parity-shards: {data} to {data + parity}",
        )
    if values["node_timeout"] <= values["heartbeat"]:
        key = "node-timeout" if "node-timeout" in found else "heartbeat"
        raise refusal(
            key,
            found.get(key),
            "a node-timeout longer than the heartbeat: not"
            f" {values['node_timeout']:g}s with {values['heartbeat']:g}s",
        )


def _complete_standalone(values: dict[str, Any], found: Mapping[str, Given]) -> None:
    quorum = values["write_quorum"]
    if values["nodes"] < quorum:
        raise refusal(
            "nodes", found.get("nodes"), f"{quorum} (the write quorum) or more"
        )
    root = values["storage_root"] = _absolute(values["storage_root"])
    for key, name in (
        ("metadata", "metadata.sqlite"),
        ("cluster_secret_file", "secret"),
        ("access_log", "access.log"),
    ):
        if values.get(key) is None:
            values[key] = os.path.join(root, name)


def _complete_cluster(values: dict[str, Any], found: Mapping[str, Given]) -> None:
    if "cluster-secret-file" not in found:
        raise StartError(
            "cluster-secret-file is missing: allowed is the path of a file with a line"
            " of at least 32 characters, the same for every service of the cluster"
        )


def _complete_data(values: dict[str, Any], found: Mapping[str, Given]) -> None:
    if "storage-root" not in found:
        raise StartError("storage-root is missing: allowed is a path, once or more")
    roots = values["storage_root"] = tuple(map(_absolute, values["storage_root"]))
    if len(set(roots)) < len(roots):
        raise refusal(
            "storage-root", found["storage-root"], "each path once, a node for each"
        )
    last = values["listen"].port + len(roots) - 1
    if values["listen"].port and last > 65535:
        raise refusal(
            "listen", found.get("listen"), f"a port that leaves {len(roots)} in a row"
        )
    if values["listen"].host in _EVERY and "advertise" not in found:
        raise StartError(
            f"advertise is missing: with listen {values['listen']} allowed is the URL"
            " at which other services reach the node, for each storage root"
        )
    values["zone"] = values.get("zone") or (socket.gethostname()[:64] or "host",)
    if len(values["zone"]) == 1:
        values["zone"] *= len(roots)
    for key in ("zone", "advertise"):
        if values.get(key) and len(values[key]) != len(roots):
            raise refusal(
                key, found.get(key), f"one for each of the {len(roots)} storage roots"
            )
    if len(set(values.get("advertise", ()))) < len(values.get("advertise", ())):
        raise refusal("advertise", found["advertise"], "each URL once")


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links in the path stay as they were given
