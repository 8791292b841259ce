"""docs/data-api.md and the node say the same."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.nodes import operations, protocol, records
from ostore.backends.shards import plain, temporaries, uploads
from ostore.model import signing
from ostore.model.errors import Malformed, NotFound, ShardError
from ostore.model.ranges import Unsatisfiable
from ostore.web.data import conversation, objects, parameters, targets
from ostore.web.data.answers import problem
from ostore.web.data.conversation import Beginning
from ostore.web.data.node import ClusterId, Drain, NodeView, ShardList, Sweep
from ostore.web.data.objects import ContentResource, ShardResource
from ostore.web.data.temp import TemporaryResource
from ostore.web.data.uploads import MAX_BODY, UploadResource
from ostore.web.status import Live

DOCS = Path(__file__).parents[3] / "docs"

ALLOWED = {
    targets.TEMPORARY: TemporaryResource.allowed,
    targets.UPLOAD: UploadResource.allowed,
    targets.CONTENT: ContentResource.allowed,
    targets.SHARD: ShardResource.allowed,
    "/node": NodeView.allowed,
    "/shards": ShardList.allowed,
    "/cluster-id": ClusterId.allowed,
    targets.FRAMES: Beginning.allowed,
    "/drain": Drain.allowed,
    "/sweep": Sweep.allowed,
    **dict.fromkeys(targets.OPEN, Live.allowed),
}
"""The methods of every route."""


class PageTests(SynchronousTestCase):
    """Every route, number and problem type of the page."""

    def setUp(self) -> None:
        """Read the page."""
        self.page = (DOCS / "data-api.md").read_text("utf-8")

    def shown(self) -> dict[str, set[str]]:
        """The methods that the tables name for each route."""
        found: dict[str, set[str]] = {}
        cells = re.findall(r"^\| (`[A-Z]+[ `][^|]*) \|", self.page, re.MULTILINE)
        for cell in cells:
            row = cell.replace("{any name}", "{uuid}")
            methods = set(re.findall(r"\b[A-Z]{3,}\b", row))
            for each in (row.replace("[.{i}]", ".{i}"), row.replace("[.{i}]", "")):
                for path in re.findall(r"/[a-z]+[^`,? \[]*", each):
                    found.setdefault(path, set()).update(methods)
        found.pop("/objects/…")  # `PUT /objects/…` is 405
        return found

    def test_routes(self) -> None:
        """The page has every route with its methods, and no other."""
        found = self.shown()
        self.assertEqual(set(ALLOWED), set(targets.ROUTES))
        self.assertEqual(set(found), set(targets.ROUTES))
        for route, methods in found.items():
            allowed = set(ALLOWED[route])
            self.assertEqual(methods | {"HEAD"}, allowed | {"HEAD"}, route)

    def test_shown_by_example(self) -> None:
        """Each row's target, filled in, is matched as that route."""
        for route in targets.ROUTES:
            path = route.replace("{hash}", "ab" * 32).replace("{i}", "3")
            path = path.replace("{uuid}", "5" * 32)
            self.assertEqual(targets.match(path.encode())[0], route)

    def test_problems(self) -> None:
        """The table of errors has what the node answers, with its status."""
        rows = dict(
            re.findall(r"^\| `([a-z-]+)` \| ([0-9]{3}) \|", self.page, re.MULTILINE)
        )
        for slug, (status, kind) in protocol.ERRORS.items():
            self.assertEqual(rows[slug], str(status))
            found = problem(kind("x"))
            assert found is not None
            self.assertEqual((found.slug, found.status), (slug, status))
        for error in (
            signing.Unsigned("x"),
            signing.WrongTime("x"),
            Malformed("x"),
            NotFound("x"),
            Unsatisfiable(5),
        ):
            found = problem(error)
            assert found is not None
            self.assertEqual(rows[found.slug], str(found.status))
        others = {"other-node": "421", "method-not-allowed": "405"}
        others |= {
            "upgrade-required": "426",
            "length-required": "411",
            "not-ready": "503",
        }
        self.assertEqual({slug: rows[slug] for slug in others}, others)
        self.assertIsNone(problem(ValueError("nothing of ours")))
        self.assertIsNotNone(problem(ShardError("of no kind")))

    def test_limits(self) -> None:
        """The page gives the limits that the code has."""
        text = " ".join(self.page.split())
        self.assertIn(f"paths above {targets.MAX_PATH} bytes", text)
        self.assertIn(f"A node holds at most {temporaries.MOST:,} (`503` beyond)", text)
        hours = int(temporaries.FORGOTTEN / 3600)
        self.assertIn(f"nobody touched for {hours} h", text)
        mib = objects.MAX_SMALL >> 20
        self.assertIn(f"at most {mib} MiB and {objects.MAX_FRAMES} frames", text)
        self.assertIn(f"at most {uploads.MOST:,} uploads (`503`)", text)
        self.assertIn(f"and has at most {MAX_BODY >> 20} MiB (`413`)", text)
        self.assertIn(f"wrote within {uploads.ALIVE:g} s", text)
        self.assertIn(f"`limit` 1 to {parameters.MAX_LIMIT}", text)
        self.assertIn(f"within {signing.WINDOW} s", text)
        self.assertIn(f"at most {records.LARGEST}", text)
        self.assertIn(f"has {conversation.MOST} conversations already", text)
        self.assertIn(f"any other {records.ANSWER_ROOM >> 10} KiB", text)

    def test_conversations(self) -> None:
        """The page has every operation and status by its number."""
        rows = dict(
            re.findall(r"^\| ([0-9]+) \| ([a-z]+) \| ", self.page, re.MULTILINE)
        )
        named = {str(each.value): each.name.lower() for each in operations.Operation}
        self.assertEqual(rows, named)
        statuses = re.findall(
            r"\b([0-9]+) [a-z]+", self.page.partition("| status |")[2]
        )
        failed = [each for each in operations.Status if each not in (0, 7, 255)]
        self.assertEqual(statuses[: len(failed)], [str(each.value) for each in failed])

    def test_head_of_plain_temporaries(self) -> None:
        """docs/shard-format.md shows the bytes that a plain temporary begins with."""
        page = " ".join((DOCS / "shard-format.md").read_text("utf-8").split())
        self.assertIn(f"`{plain.HEAD.hex(' ')}`", page)
