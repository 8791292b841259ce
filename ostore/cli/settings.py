"""Where the service is and who asks: option, environment, profile, default.

Profiles are tables of `$XDG_CONFIG_HOME/ostore/config.toml`:

    profile = "home"                       # which one is used without --profile

    [profiles.home]
    endpoint = "https://store.home:8443"
    ca-file = "/etc/ostore/ca.pem"
    token-file = "/home/zoe/.config/ostore/token"
    cluster-secret-file = "/etc/ostore/secret"

Secrets come from files or from the environment, never from the command line, which
every user of a machine can read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ostore.cli.endpoint import Endpoint
from ostore.cli.failures import Misused

DEFAULT_ENDPOINT = "http://127.0.0.1:8080"
KEYS = ("endpoint", "ca-file", "token-file", "cluster-secret-file")
ENVIRONMENT = {
    "endpoint": "OSTORE_ENDPOINT",
    "ca-file": "OSTORE_CA_FILE",
    "token-file": "OSTORE_TOKEN_FILE",
    "cluster-secret-file": "OSTORE_CLUSTER_SECRET_FILE",
}
PROFILE, SECRET, TOKEN = "OSTORE_PROFILE", "OSTORE_CLUSTER_SECRET", "OSTORE_TOKEN"
TRACEBACK = "OSTORE_TRACEBACK"
VARIABLES = frozenset({*ENVIRONMENT.values(), PROFILE, SECRET, TOKEN, TRACEBACK})
"""Every variable of the environment that the command reads, but for XDG's."""
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


@attrs.frozen
class Settings:
    """What a command needs to know before it asks anybody."""

    endpoint: Endpoint
    ca_file: Path | None
    secret_file: Path | None
    secret_text: str | None = attrs.field(repr=False)
    token_file: Path | None
    token_text: str | None = attrs.field(repr=False)
    state: Path
    """The folder of transfers under way."""

    def secret(self) -> bytes:
        """The cluster secret. Raises Misused."""
        text = self.secret_text
        if self.secret_file is not None:
            text = _read(self.secret_file, "cluster-secret-file")
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

    def authorization(self) -> str | None:
        """What a request bears when somebody before the service asks for it.

        Raises Misused.
        """
        text = self.token_text
        if self.token_file is not None:
            text = _read(self.token_file, "token-file")
        if text is None:
            return None
        if not _TOKEN.fullmatch(text.strip()):
            raise Misused("the token is one line of printable ASCII without blanks")
        return f"Bearer {text.strip()}"


def _read(path: Path, key: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Misused(f"{key} {str(path)!a} cannot be read: {why}") from None


def config_file(environ: Mapping[str, str]) -> Path:
    """Where the profiles are."""
    return _folder(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def resolve(options: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """The settings; `options` has `profile` and KEYS. Raises Misused."""
    profile = _profile(options.get("profile"), environ)

    def value(key: str) -> str | None:
        return options.get(key) or environ.get(ENVIRONMENT[key]) or profile.get(key)

    def file(key: str, unless: str | None = None) -> Path | None:
        """The path of a key; a variable that has the text itself goes before it."""
        given = value(key)
        if unless and environ.get(unless) and not options.get(key):
            return None
        return Path(given).expanduser() if given else None

    return Settings(
        endpoint=Endpoint.parse(value("endpoint") or DEFAULT_ENDPOINT),
        ca_file=file("ca-file"),
        secret_file=file("cluster-secret-file", SECRET),
        secret_text=environ.get(SECRET) or None,
        token_file=file("token-file", TOKEN),
        token_text=environ.get(TOKEN) or None,
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
    if not wanted and not path.exists():
        return {}
    import tomllib  # noqa: PLC0415  # 10 ms that only a file costs

    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise Misused(f"no profile {wanted!a}: there is no {str(path)!a}") from None
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
