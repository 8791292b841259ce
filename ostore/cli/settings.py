"""Where the service is and who asks: option, environment, profile, default.

Profiles are tables of `$XDG_CONFIG_HOME/ostore/config.toml`:

    profile = "home"                       # which one is used without --profile

    [profiles.home]
    endpoint = "https://store.home:8443"
    ca-file = "/etc/ostore/ca.pem"
    cluster-secret-file = "/etc/ostore/secret"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ostore.cli.client import Endpoint
from ostore.cli.failures import Misused

DEFAULT_ENDPOINT = "http://127.0.0.1:8080"
KEYS = ("endpoint", "ca-file", "cluster-secret-file")
ENVIRONMENT = {
    "endpoint": "OSTORE_ENDPOINT",
    "ca-file": "OSTORE_CA_FILE",
    "cluster-secret-file": "OSTORE_CLUSTER_SECRET_FILE",
}
PROFILE, SECRET = "OSTORE_PROFILE", "OSTORE_CLUSTER_SECRET"


@attrs.frozen
class Settings:
    """What a command needs to know before it asks anybody."""

    endpoint: Endpoint
    ca_file: Path | None
    secret_file: Path | None
    secret_text: str | None = attrs.field(repr=False)
    state: Path
    """The folder of transfers under way."""

    def secret(self) -> bytes:
        """The cluster secret. Raises Misused."""
        text = self.secret_text
        if self.secret_file is not None:
            try:
                text = self.secret_file.read_text("utf-8")
            except (OSError, UnicodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise Misused(
                    f"cluster secret {str(self.secret_file)!a}: {why}"
                ) from None
        if text is None:
            raise Misused(
                "this needs the cluster secret: name its file with "
                "--cluster-secret-file (a standalone keeps it as `secret` under its "
                "storage root), or put it into OSTORE_CLUSTER_SECRET"
            )
        lines = [line for each in text.splitlines() if (line := each.strip())]
        if not lines or any(len(line) < 32 for line in lines):
            raise Misused("the cluster secret has lines of at least 32 characters")
        return lines[0].encode("utf-8", "surrogateescape")


def config_file(environ: Mapping[str, str]) -> Path:
    """Where the profiles are."""
    return _folder(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def resolve(options: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """The settings; `options` has `profile` and KEYS. Raises Misused."""
    profile = _profile(options.get("profile"), environ)

    def value(key: str) -> str | None:
        return options.get(key) or environ.get(ENVIRONMENT[key]) or profile.get(key)

    ca_file, secret_file = value("ca-file"), value("cluster-secret-file")
    text = environ.get(SECRET)
    if text and not options.get("cluster-secret-file"):
        secret_file = None
    return Settings(
        endpoint=Endpoint.parse(value("endpoint") or DEFAULT_ENDPOINT),
        ca_file=Path(ca_file).expanduser() if ca_file else None,
        secret_file=Path(secret_file).expanduser() if secret_file else None,
        secret_text=text or None,
        state=_folder(environ, "XDG_STATE_HOME", ".local/state"),
    )


def _folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    given = environ.get(variable)
    # The base directory specification has relative ones ignored.
    if given and Path(given).is_absolute():
        return Path(given) / "ostore"
    return Path(environ.get("HOME") or Path.home()) / below_home / "ostore"


def _profile(option: str | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    path = config_file(environ)
    wanted = option or environ.get(PROFILE)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if wanted:
            raise Misused(f"no profile {wanted!a}: there is no {str(path)!a}") from None
        return {}
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise Misused(f"{str(path)!a} cannot be used: {error}") from None
    return _chosen(table, wanted, path)


def _chosen(table: dict[str, Any], wanted: str | None, path: Path) -> Mapping[str, str]:
    where = str(path)
    profiles = table.get("profiles", {})
    if unknown := table.keys() - {"profile", "profiles"}:
        raise Misused(
            f"{where!a}: unknown key {min(unknown)!a}; allowed: profile, profiles"
        )
    wanted = wanted or table.get("profile")
    if wanted is None:
        return {}
    profile = profiles.get(wanted) if isinstance(profiles, dict) else None
    if not isinstance(profile, dict):
        there = ", ".join(sorted(profiles)) if isinstance(profiles, dict) else ""
        raise Misused(f"{where!a}: no profile {wanted!a}; there is: {there or 'none'}")
    for key, value in profile.items():
        if key not in KEYS or not isinstance(value, str):
            raise Misused(
                f"{where!a}: profile {wanted!a} has {key!a}; allowed are texts for "
                + ", ".join(KEYS)
            )
    return profile
