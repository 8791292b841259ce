"""GET and HEAD of an object: conditions, then all of it, a part, or several."""

from __future__ import annotations

from ostore.engine.store import ObjectStore, OpenObject
from ostore.model.conditions import ReadConditions
from ostore.model.digest import wanted
from ostore.model.encodings import IDENTITY, taken, worth_coding
from ostore.model.ranges import Span, Unsatisfiable, merged, parse_ranges, runs
from ostore.model.versions import Version
from ostore.streaming.coding import Coder
from ostore.streaming.pools import Workers
from ostore.streaming.resource import Call, Problem
from ostore.web.api import parameters
from ostore.web.api.answers import coded, describing, naming

UNCONDITIONAL = ReadConditions()
_CONDITIONAL = frozenset(
    {
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
    }
)


async def read_object(
    call: Call, store: ObjectStore, name: str, workers: Workers
) -> None:
    """Answer with the object, parts of it, or why not. Raises what `open` raises."""
    number = parameters.version(call)
    conditions = _conditions(call)
    opened = await store.open(name, number)
    version = opened.version
    codable = worth_coding(version.headers, version.size)
    if codable:
        call.reply.headers["Vary"] = "Accept-Encoding"
    codings = taken(call.header("Accept-Encoding")) if codable else (IDENTITY,)
    if IDENTITY in codings and wanted(call.header("Want-Repr-Digest")):
        codings = (IDENTITY,)  # of coded bytes no digest is known before they are out
    modified = version.created / 1000
    spans_wanted = call.header("Range") if call.method == "GET" else None
    if spans_wanted is not None and (
        not conditions.range_allowed(version.hash, modified)
        or (
            conditions.range_by_date
            and number is None
            and not await _alone(store, version)
        )
    ):
        spans_wanted = None
    verdict = conditions.decide(
        version.hash, modified, codings, part=spans_wanted is not None
    )
    if verdict == "failed":
        raise Problem(
            412,
            "a precondition does not hold for this version",
            slug="condition-failed",
            title="Precondition failed",
            headers=naming(version),
        )
    coding = codings[0] if codings else None
    if verdict == "not-modified":
        call.reply.status = 304
        held = conditions.held(version.hash, codings)
        call.reply.headers.update(_unchanged(version, held or _tag(version, coding)))
        await call.reply.finish()
        return
    spans = None if spans_wanted is None else _spans(spans_wanted, version)
    if spans is None and coding is None:
        raise Problem(
            406,
            "identity, gzip and zstd are what the object can be had in",
            slug="not-acceptable",
            title="Not acceptable",
            headers={"Vary": "Accept-Encoding"},
        )
    if spans is None and coding not in (None, IDENTITY):
        await _send_coded(call, opened, coding, workers)
    elif call.method == "HEAD" or version.size == 0:
        await opened.reach()
        _describe(call, version, version.size)
        await call.reply.finish()
    elif spans is None or len(spans) == 1:
        await _send(call, opened, spans[0] if spans else None)
    else:
        await _send_parts(call, opened, spans)


def _conditions(call: Call) -> ReadConditions:
    if _CONDITIONAL.isdisjoint(call.request.fields):
        return UNCONDITIONAL
    return ReadConditions.parse(
        call.header("If-Match"),
        call.header("If-None-Match"),
        call.header("If-Modified-Since"),
        call.header("If-Unmodified-Since"),
        call.header("If-Range"),
    )


async def _alone(store: ObjectStore, version: Version) -> bool:
    """Whether no other version below is known or possible in the same second.

    Otherwise its date is a weak validator (RFC 9110, 8.8.2.2), which If-Range forbids.
    """
    if version.number == 1:
        return True
    found = await store.versions_of(version.name, version.number - 2, 1)
    below = found[0] if found else version
    return below.created // 1000 < version.created // 1000


def _spans(wanted: str, version: Version) -> list[Span] | None:
    """The parts asked for; None for the whole. Raises Problem 416."""
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
    return None if spans is None else merged(spans)


def _unchanged(version: Version, tag: str) -> dict[str, str]:
    """What a 304 repeats (RFC 9110, 15.4.5); the tag is that of what the client has."""
    told = ("Last-Modified", "Cache-Control")
    described = describing(version)
    repeated = {name: described[name] for name in told if name in described}
    return {**naming(version), **repeated, "ETag": f'"{tag}"'}


def _tag(version: Version, coding: str | None) -> str:
    return version.hash if coding in (None, IDENTITY) else f"{version.hash}-{coding}"


def _describe(call: Call, version: Version, length: int) -> None:
    call.reply.headers.update(describing(version))
    if wanted(call.header("Want-Repr-Digest")) is False:
        del call.reply.headers["Repr-Digest"]
    call.reply.headers["Content-Length"] = str(length)


async def _send(call: Call, opened: OpenObject, span: Span | None) -> None:
    """Pump the bytes; the head waits for the first of them, so errors stay clean."""
    version = opened.version
    part = span or Span(0, version.size)
    stream = await opened.read(part.start, part.stop)
    try:
        pieces = await stream.pieces()
        _describe(call, version, part.length)
        if span is not None:
            call.reply.status = 206
            call.reply.headers["Content-Range"] = span.content_range(version.size)
        while pieces:
            await call.reply.write(*pieces)
            pieces = await stream.pieces()
        await call.reply.finish()
    finally:
        await stream.close()


async def _send_parts(call: Call, opened: OpenObject, spans: list[Span]) -> None:
    """Several ranges as multipart/byteranges (RFC 9110, 14.6), one after the other.

    Neighbours are read in one go: no stripe twice for parts in ascending order.
    """
    version = opened.version
    described = describing(version)
    boundary = call.reply.request_id
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {described['Content-Type']}\r\n"
        f"Content-Range: {span.content_range(version.size)}\r\n\r\n".encode(
            "utf-8", "surrogateescape"
        )
        for span in spans
    ]
    end = f"\r\n--{boundary}--\r\n".encode("ascii")
    length = sum(map(len, heads)) + sum(span.length for span in spans) + len(end)
    left = iter(heads)
    for run in runs(spans):
        stream = await opened.read(run[0].start, run[-1].stop)
        try:
            at, piece = run[0].start, await stream.read()
            if not call.reply.started:
                _describe(call, version, length)
                call.reply.status = 206
                kind = f"multipart/byteranges; boundary={boundary}"
                call.reply.headers["Content-Type"] = kind
            for span in run:
                await call.reply.write(next(left))
                while True:
                    part = piece[max(0, span.start - at) : span.stop - at]
                    await call.reply.write(part)
                    if not piece or at + len(piece) >= span.stop:
                        break
                    at += len(piece)
                    piece = await stream.read()
        finally:
            await stream.close()
    await call.reply.write(end)
    await call.reply.finish()


async def _send_coded(
    call: Call, opened: OpenObject, coding: str, workers: Workers
) -> None:
    """The whole body in another coding; how long it is shows at its end."""
    version = opened.version
    headers = coded(version, coding)
    if call.method == "HEAD":
        await opened.reach()
        call.reply.headers.update(headers)
        await call.reply.write(b"")
        await call.reply.finish()
        return
    coder = Coder(coding, workers)
    stream = await opened.read(0, version.size)
    try:
        piece = await stream.read()
        call.reply.headers.update(headers)
        while piece:
            await call.reply.write(await coder.feed(piece))
            piece = await stream.read()
        await call.reply.write(coder.finish())
        await call.reply.finish()
    finally:
        await stream.close()
