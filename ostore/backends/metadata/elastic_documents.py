"""Heads and archives to and from the documents of `ostore-heads`.

What a head is lies in `bucket`, `name`, `high`, `created`, `latest`, `older` and
`archives`; everything else in a document is made from that, for searches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ostore.model.heads import Archive, Head
from ostore.model.layouts import Layout
from ostore.model.versions import NO_HEADERS, Degraded, Version

Document = Mapping[str, Any]

HEAD_FIELDS = ("bucket", "name", "high", "created", "latest", "older", "archives")
"""What `head_of` reads."""
LATEST_FIELDS = ("bucket", "name", "latest")
"""What `latest_of` reads."""
MARK_FIELDS = ("bucket", "name", "missing")
"""What `marks_of` reads."""


def head_id(bucket: str, name: str) -> str:
    """The document id of a name's head: 64 hex digits."""
    return hashlib.sha256(key_of(bucket, name).encode()).hexdigest()


def key_of(bucket: str, name: str) -> str:
    """What heads are sorted by; neither part can hold a NUL."""
    return f"{bucket}\0{name}"


def folder_key(bucket: str, path: str) -> str:
    """A value of `parents`: a bucket's folders of one depth lie together, by path."""
    return key_of(bucket, f"{path.count('/'):04x}{path}")


def parents_of(name: str) -> list[str]:
    """Every prefix of the name that ends in a slash."""
    return [name[: at + 1] for at, letter in enumerate(name) if letter == "/"]


def head_document(head: Head) -> Document:
    """The document of a head."""
    parents = parents_of(head.name)
    # Folders are those of live names: so a page of them needs no filter, and a search
    # without one walks the terms of `parents` instead of all documents.
    folders = [folder_key(head.bucket, path) for path in parents if head.live]
    inline = [_json_of(one) for one in head.versions]
    return {
        "id": head_id(head.bucket, head.name),
        "key": key_of(head.bucket, head.name),
        "bucket": head.bucket,
        "name": head.name,
        "folder": parents[-1] if parents else "",
        "parents": folders,
        "live": head.live,
        "kept": bool(head.versions),
        "high": head.high,
        "created": head.created,
        **({"latest": inline[-1]} if inline else {}),
        "older": inline[:-1],
        "archives": [[a.id, a.first, a.last, a.count] for a in head.archives],
        **_searchable(head.versions),
    }


def archive_document(
    id: str, bucket: str, name: str, versions: Sequence[Version], written: int
) -> Document:
    """The document of an archive; `written` is in milliseconds since 1970."""
    return {
        "id": id,
        "head": head_id(bucket, name),
        "bucket": bucket,
        "name": name,
        "written": written,
        "older": [_json_of(one) for one in versions],
        **_searchable(versions),
    }


def head_of(source: Document) -> Head:
    """The head in a document."""
    bucket, name = source["bucket"], source["name"]
    inline = list(source["older"])
    if source.get("latest") is not None:
        inline.append(source["latest"])
    return Head(
        bucket=bucket,
        name=name,
        high=source["high"],
        created=source["created"],
        versions=tuple(_version_of(bucket, name, one) for one in inline),
        archives=tuple(Archive(*one) for one in source["archives"]),
    )


def latest_of(source: Document) -> Version:
    """The newest version in the document of a head that has one."""
    return _version_of(source["bucket"], source["name"], source["latest"])


def archived_in(source: Document) -> tuple[Version, ...]:
    """The versions in the document of an archive."""
    bucket, name = source["bucket"], source["name"]
    return tuple(_version_of(bucket, name, one) for one in source["older"])


def marks_of(source: Document) -> list[Degraded]:
    """The versions of a document that lack shards, as far as they say so."""
    bucket, name = source["bucket"], source["name"]
    return [
        Degraded(hash, Layout(*layout), tuple(missing), ((bucket, name, number),))
        for number, hash, layout, missing in source.get("missing", ())
    ]


def content_key(hash: str, layout: Layout) -> str:
    """What `marks` holds of a content that lacks shards."""
    return f"{hash}/{layout.id}"


def rank_of(layout: Layout, missing: Sequence[int]) -> str:
    """What `degraded` begins with: the fewer shards are left, the lower."""
    return f"{layout.shards - len(missing):02d}/"


def _searchable(versions: Sequence[Version]) -> dict[str, Any]:
    marked = [
        (one, one.layout) for one in versions if one.degraded and one.layout is not None
    ]
    marks = {content_key(one.hash, layout) for one, layout in marked}
    degraded = {
        rank_of(layout, one.degraded) + content_key(one.hash, layout)
        for one, layout in marked
    }
    return {
        "hashes": sorted({one.hash for one in versions if not one.deleted}),
        "marks": sorted(marks),
        "degraded": sorted(degraded),
        "missing": [
            [one.number, one.hash, _layout_json(layout), list(one.degraded)]
            for one, layout in marked
        ],
    }


def _layout_json(layout: Layout) -> list[Any]:
    return [layout.data, layout.parity, layout.size, layout.id]


def _json_of(version: Version) -> dict[str, Any]:
    made: dict[str, Any] = {
        "number": version.number,
        "created": version.created,
        "put_id": version.put_id,
    }
    if version.deleted:
        made["deleted"] = True
    else:
        made["hash"], made["size"] = version.hash, version.size
    if version.headers:
        made["headers"] = dict(version.headers)
    if version.layout is not None:
        made["layout"] = _layout_json(version.layout)
    if version.degraded:
        made["degraded"] = list(version.degraded)
    return made


def _version_of(bucket: str, name: str, made: Mapping[str, Any]) -> Version:
    layout = made.get("layout")
    return Version(
        name=name,
        number=made["number"],
        hash=made.get("hash", ""),
        size=made.get("size", 0),
        created=made["created"],
        deleted=made.get("deleted", False),
        put_id=made["put_id"],
        bucket=bucket,
        headers=made.get("headers", NO_HEADERS),
        layout=None if layout is None else Layout(*layout),
        degraded=tuple(made.get("degraded", ())),
    )
