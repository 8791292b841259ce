"""`ostore stat`: what is known of one version."""

from __future__ import annotations

import click

from ostore.cli.console import shown, size_text
from ostore.cli.download import Found
from ostore.cli.options import NAME, examples, verb
from ostore.cli.session import Session
from ostore.model.digest import hex_to_base64

KEPT = (
    "Content-Type",
    "Content-Encoding",
    "Content-Disposition",
    "Content-Language",
    "Cache-Control",
)
META = "x-ostore-meta-"


@click.command(
    short_help="What is known of one version.",
    epilog=examples("ostore stat trip/photo.raw", "ostore stat --version 2 a"),
)
@click.argument("names", metavar="NAME...", type=NAME, nargs=-1, required=True)
@click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="That version, not the newest.",
)
@verb
def command(session: Session, names: tuple[str, ...], version: int | None) -> None:
    """Show size, hash, time and kept headers of NAME."""
    for name in names:
        found = Found.of(name, session.remote.head(name, version))
        headers = {key.lower(): value for key, value in found.headers.items()}
        kept = {key: headers[key.lower()] for key in KEPT if key.lower() in headers}
        meta = {
            key.removeprefix(META): value
            for key, value in headers.items()
            if key.startswith(META)
        }
        facts = {
            "name": name,
            "version": found.version,
            "size": found.size,
            "hash": hex_to_base64(found.hash),
            "sha256": found.hash,
            "modified": headers.get("last-modified", ""),
            "headers": kept,
            "metadata": meta,
        }
        lines = [
            ("name", name),
            ("version", str(found.version)),
            ("size", f"{found.size} ({size_text(found.size)})"),
            ("sha256", found.hash),
            ("modified", facts["modified"]),
            *kept.items(),
            *((f"meta {key}", value) for key, value in meta.items()),
        ]
        text = "\n".join(f"{key + ':':<21}{shown(str(value))}" for key, value in lines)
        session.console.item(facts, text)
