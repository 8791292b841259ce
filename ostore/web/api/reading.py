"""GET and HEAD of an object: conditions, one range, then bytes with back-pressure."""

from __future__ import annotations

from ostore.engine.store import ObjectStore, OpenObject
from ostore.model.conditions import ReadConditions
from ostore.model.ranges import Span, Unsatisfiable, parse_ranges
from ostore.model.versions import Version
from ostore.streaming.resource import Call, Problem
from ostore.web.api import parameters
from ostore.web.api.answers import describing, naming


async def read_object(call: Call, store: ObjectStore, name: str) -> None:
    """Answer with the object, a part of it, or why not. Raises what `open` raises."""
    number = parameters.version(call)
    conditions = ReadConditions.parse(
        call.header("If-Match"),
        call.header("If-None-Match"),
        call.header("If-Modified-Since"),
        call.header("If-Unmodified-Since"),
        call.header("If-Range"),
    )
    opened = await store.open(name, number)
    version = opened.version
    modified = version.created / 1000
    verdict = conditions.decide(version.hash, modified)
    if verdict == "failed":
        raise Problem(
            412,
            "a precondition does not hold for this version",
            slug="condition-failed",
            title="Precondition failed",
            headers=naming(version),
        )
    if verdict == "not-modified":
        call.reply.status = 304
        call.reply.headers.update(_unchanged(version))
        await call.reply.finish()
        return
    wanted = call.header("Range") if call.method == "GET" else None
    span = None
    if wanted is not None and conditions.range_allowed(version.hash, modified):
        span = _one_span(wanted, version)
    if call.method == "HEAD" or version.size == 0:
        await opened.reach()
        _head(call, version, None)
        await call.reply.finish()
    else:
        await _send(call, opened, span)


def _one_span(wanted: str, version: Version) -> Span | None:
    """The part asked for; None for the whole, which also answers several ranges."""
    try:
        spans = parse_ranges(wanted, version.size)
    except Unsatisfiable as error:
        raise Problem(
            416,
            str(error),
            slug="range-not-satisfiable",
            title="Range not satisfiable",
            headers={"Content-Range": error.content_range, "Accept-Ranges": "bytes"},
        ) from None
    return spans[0] if spans is not None and len(spans) == 1 else None


def _unchanged(version: Version) -> dict[str, str]:
    """What a 304 repeats (RFC 9110, 15.4.5)."""
    told = ("Last-Modified", "Cache-Control")
    described = describing(version)
    return {
        **naming(version),
        **{name: described[name] for name in told if name in described},
    }


def _head(call: Call, version: Version, span: Span | None) -> None:
    length = version.size
    headers = describing(version)
    if span is not None:
        call.reply.status = 206
        length = span.length
        headers["Content-Range"] = span.content_range(version.size)
    headers["Content-Length"] = str(length)
    call.reply.headers.update(headers)


async def _send(call: Call, opened: OpenObject, span: Span | None) -> None:
    """Pump the bytes; the head waits for the first of them, so errors stay clean."""
    whole = Span(0, opened.version.size)
    part = span or whole
    stream = await opened.read(part.start, part.stop)
    try:
        piece = await stream.read()
        _head(call, opened.version, span)
        while piece:
            await call.reply.write(piece)
            piece = await stream.read()
        await call.reply.finish()
    finally:
        await stream.close()
