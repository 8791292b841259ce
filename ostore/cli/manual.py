"""Manual pages (man(7)), made from the texts that --help shows. Pure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

import click

from ostore import __version__

SECTION = 1
STATUSES = (
    ("0", "Done."),
    ("1", "It failed; the message says what to do next."),
    ("2", "The command line or the settings cannot be used."),
    ("3", "There is no such object, version or job."),
    ("4", "Bytes are not what their SHA-256 says; nothing wrong was kept."),
)
VARIABLES = (
    ("OSTORE_ENDPOINT", "Where the service is, without --endpoint."),
    ("OSTORE_PROFILE", "Which profile of ~/.config/ostore/config.toml."),
    ("OSTORE_CA_FILE", "Who vouches for https, without --ca-file."),
    ("OSTORE_TOKEN, OSTORE_TOKEN_FILE", "A bearer token, or the file that has it."),
    (
        "OSTORE_CLUSTER_SECRET, OSTORE_CLUSTER_SECRET_FILE",
        "The cluster secret, or the file that has it.",
    ),
    ("NO_COLOR", "No colours."),
)


def pages(root: click.Group) -> dict[str, str]:
    """Every page by its file name: one of the command, one of each verb."""
    found: dict[str, str] = {}
    waiting: list[tuple[tuple[str, ...], click.Command]] = [(("ostore",), root)]
    while waiting:
        words, command = waiting.pop(0)
        found[f"{'-'.join(words)}.{SECTION}"] = page(words, command)
        waiting += [((*words, name), below) for name, below in _verbs(command)]
    return found


def page(words: Sequence[str], command: click.Command) -> str:
    """One page."""
    name, spoken = "-".join(words), " ".join(words)
    paragraphs = _paragraphs(command.help or "")
    title, pieces = _escaped(name.upper()), " ".join(_pieces(command))
    lines = [
        f'.TH "{title}" {SECTION} "" "ostore {__version__}" "ostore"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(paragraphs[0])}",
        ".SH SYNOPSIS",
        f".B {_escaped(spoken)}",
        _escaped(pieces),
        ".SH DESCRIPTION",
        _escaped(paragraphs[0]),
    ]
    for paragraph in paragraphs[1:]:
        lines += [".PP", _escaped(paragraph)]
    if below := list(_verbs(command)):
        lines.append(".SH COMMANDS")
        for verb, each in below:
            first = _paragraphs(each.help or "")[0]
            lines += [".TP", f".B {_escaped(verb)}", _escaped(first)]
    if options := [p for p in command.params if isinstance(p, click.Option)]:
        lines.append(".SH OPTIONS")
        for option in options:
            lines += _option(option)
    if len(words) == 1:
        lines += [".SH ENVIRONMENT", *_list(VARIABLES)]
    lines += [".SH EXIT STATUS", *_list(STATUSES)]
    if examples := _examples(command.epilog or ""):
        lines += [".SH EXAMPLES", ".nf", *map(_escaped, examples), ".fi"]
    lines += [".SH SEE ALSO", _also(words, command)]
    return "\n".join(lines) + "\n"


def _verbs(command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield name, below


def _pieces(command: click.Command) -> Iterator[str]:
    if any(isinstance(param, click.Option) for param in command.params):
        yield "[OPTIONS]"
    ctx = click.Context(command)
    for param in command.params:
        if isinstance(param, click.Argument):
            yield param.make_metavar(ctx)
    if isinstance(command, click.Group):
        yield "COMMAND [ARGS]..."


def _option(option: click.Option) -> Iterator[str]:
    ctx = click.Context(click.Command("ostore"))
    names = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.make_metavar(ctx)}"
    text = option.help or ""
    if option.show_default and option.default is not None:
        text += f" The default is {option.default}."
    yield ".TP"
    yield f".B {_escaped(names + value)}"
    yield _escaped(re.sub(r" +\[default: (.*)\]", r" The default is \1.", text))


def _paragraphs(text: str) -> list[str]:
    found = inspect.cleandoc(text).split("\n\n")
    return [" ".join(each.split()) for each in found if each.strip()] or [""]


def _examples(epilog: str) -> list[str]:
    _, _, text = epilog.partition("Examples:\n")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _list(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, text in entries:
        yield from (".TP", f".B {_escaped(name)}", _escaped(text))


def _also(words: Sequence[str], command: click.Command) -> str:
    names = ["-".join((*words, name)) for name, _ in _verbs(command)]
    if len(words) > 1:
        names.insert(0, "-".join(words[:-1]))
    if not names:
        names = ["ostore"]
    return ",\n".join(f".BR {_escaped(name)} ({SECTION})" for name in names).replace(
        "),\n", ") ,\n"
    )


def _escaped(text: str) -> str:
    """As groff shows it: backslashes, dashes, and no line that is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    text = text.replace("'", "\\(aq").replace("~", "\\(ti").replace("^", "\\(ha")
    return f"\\&{text}" if text.startswith((".", "'")) else text
