"""The fake search server does what the real ones do, and guesses at nothing."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata.elastic_client import Reply
from ostore.model.errors import MetadataUnavailable
from ostore.streaming.tasks import start
from tests.support.fakedocuments import Unsupported
from tests.support.fakesearch import PRIMARY, REPLICA, FakeSearch, Progress, Request

CONSTANT = {"preference": "ostore"}
WHOLE = {**CONSTANT, "allow_partial_search_results": "false"}
TEMPLATE = {
    "index_patterns": ["things-v*"],
    "template": {
        "settings": {"index": {"number_of_shards": 4, "sort": {"field": ["name"]}}},
        "mappings": {
            "dynamic": "strict",
            "properties": {
                "name": {"type": "keyword"},
                "tags": {"type": "keyword"},
                "size": {"type": "long"},
                "hidden": {"type": "keyword", "index": False, "doc_values": False},
                "any": {"type": "object", "enabled": False},
            },
        },
    },
}


class FakeTests(SynchronousTestCase):
    """One index behind an alias, made from a template."""

    def setUp(self) -> None:
        """Make it."""
        self.fake = FakeSearch(REPLICA)
        self.call("PUT", "/_index_template/things", body=TEMPLATE)
        self.call("PUT", "/things-v1", body={"aliases": {"things": {}}})

    def call(self, method: str, path: str, **more: Any) -> Reply:
        """One exchange."""
        return self.successResultOf(start(self.fake.call(method, path, **more)))

    def write(self, *lines: Any, **query: str) -> list[dict[str, Any]]:
        """The items of a bulk."""
        body = self.call("POST", "/things/_bulk", lines=lines, query=query).body
        return [item for each in body["items"] for item in each.values()]

    def get(self, *docs: Any, path: str = "/things/_mget") -> list[dict[str, Any]]:
        """The documents of an mget."""
        body = {"docs": list(docs)}
        found: list[dict[str, Any]]
        found = self.call("POST", path, body=body, query=CONSTANT).body["docs"]
        return found

    def search(self, **body: Any) -> dict[str, Any]:
        """The answer to a search."""
        found: dict[str, Any]
        found = self.call("POST", "/things/_search", body=body, query=WHOLE).body
        return found

    def names(self, **query: Any) -> list[str]:
        """What a query finds, in order."""
        found = self.search(query=query, sort=[{"name": "asc"}])
        return [hit["_source"]["name"] for hit in found["hits"]["hits"]]

    def fill(self) -> None:
        """Some documents that searches see."""
        for name, size, tags in (
            ("a", 1, ["x"]),
            ("é", 2, ["x", "y"]),
            ("\uffff", 3, []),
            ("\U0001f4a9", 4, ["y"]),
        ):
            document = {"name": name, "size": size, "tags": tags}
            self.write({"create": {"_id": name}}, document)
        self.fake.refresh()

    def test_compare_and_set(self) -> None:
        """Each item for itself: 201, 200, 409; what is compared is the last number."""
        (made,) = self.write({"create": {"_id": "1"}}, {"name": "a"})
        self.assertEqual((made["status"], made["_seq_no"]), (201, 0))
        over = {"if_seq_no": 0, "if_primary_term": 1}
        items = self.write(
            {"create": {"_id": "1"}},
            {"name": "b"},
            {"index": {"_id": "1", **over}},
            {"name": "c"},
            {"index": {"_id": "1", **over}},
            {"name": "d"},
            {"index": {"_id": "2", **over}},
            {"name": "e"},
        )
        self.assertEqual([each["status"] for each in items], [409, 200, 409, 409])
        (found,) = self.get({"_id": "1"})
        self.assertEqual((found["_source"], found["_seq_no"]), ({"name": "c"}, 1))

    def test_deletions(self) -> None:
        """What was deleted is absent, and its shard goes on counting."""
        self.write({"create": {"_id": "1"}}, {"name": "a"})
        gone, absent = self.write({"delete": {"_id": "1"}}, {"delete": {"_id": "2"}})
        self.assertEqual((gone["status"], absent["status"]), (200, 404))
        self.assertNotIn("error", absent)
        (made,) = self.write({"create": {"_id": "1"}}, {"name": "b"})
        self.assertEqual((made["status"], made["_seq_no"]), (201, 2))

    def test_routing(self) -> None:
        """A document is found only by the routing that it was written with."""
        self.write({"create": {"_id": "1", "routing": "r"}}, {"name": "a"})
        found, lost = self.get({"_id": "1", "routing": "r"}, {"_id": "1"})
        self.assertEqual((found["found"], lost["found"]), (True, False))

    def test_copies(self) -> None:
        """A write is on the primary first; a read sees the copy that it is given."""
        lines = [{"create": {"_id": "1"}}, {"name": "a"}]
        request = Request.of("POST", "/things/_bulk", {}, None, lines, False)
        halfway = self.fake.step(request, Progress())
        assert isinstance(halfway, Progress)
        self.assertFalse(self.get({"_id": "1"})[0]["found"])
        self.fake.chosen = PRIMARY
        self.assertTrue(self.get({"_id": "1"})[0]["found"])
        self.fake.chosen = REPLICA
        self.assertIsInstance(self.fake.step(request, halfway), Reply)
        self.assertTrue(self.get({"_id": "1"})[0]["found"])

    def test_strict_mapping(self) -> None:
        """Fields that are not mapped, and values of other types, are refused."""
        refused: list[dict[str, Any]] = [
            {"other": 1},
            {"size": "x"},
            {"size": 1 << 63},
            {"name": {}},
        ]
        for document in refused:
            (item,) = self.write({"create": {"_id": "1"}}, document)
            self.assertEqual(item["status"], 400, document)
        long = "n" * 40_000
        (item,) = self.write({"create": {"_id": "1"}}, {"tags": [long]})
        self.assertEqual(item["status"], 400)
        fine = {"hidden": long, "any": [[{"x": 1}]], "tags": ["a", "b"]}
        (item,) = self.write({"create": {"_id": "1"}}, fine)
        self.assertEqual(item["status"], 201)

    def test_searches_see_what_was_refreshed(self) -> None:
        """A search lags behind until a refresh; a read by id never does."""
        self.write({"create": {"_id": "1"}}, {"name": "a"})
        self.assertEqual(self.names(match_all={}), [])
        self.call("POST", "/things/_refresh")
        self.assertEqual(self.names(match_all={}), ["a"])

    def test_queries(self) -> None:
        """Terms, ranges and prefixes, by UTF-8 bytes; several values, any of them."""
        self.fill()
        self.assertEqual(self.names(match_all={}), ["a", "é", "\uffff", "\U0001f4a9"])
        self.assertEqual(self.names(term={"tags": "y"}), ["é", "\U0001f4a9"])
        self.assertEqual(self.names(prefix={"name": "\U0001f4a9"}), ["\U0001f4a9"])
        above = {"name": {"gt": "é"}}
        self.assertEqual(self.names(range=above), ["\uffff", "\U0001f4a9"])
        both = {"filter": [{"term": {"tags": "x"}}, {"range": {"size": {"gte": 2}}}]}
        self.assertEqual(self.names(bool=both), ["é"])
        self.assertEqual(self.names(exists={"field": "tags"}), ["a", "é", "\U0001f4a9"])

    def test_pages(self) -> None:
        """search_after goes on behind a value; composite pages list values once."""
        self.fill()
        found = self.search(size=1, sort=[{"name": "asc"}], search_after=["a"])
        self.assertEqual([hit["_id"] for hit in found["hits"]["hits"]], ["é"])
        page = {"size": 9, "sources": [{"v": {"terms": {"field": "tags"}}}]}
        aggs = {"p": {"composite": {**page, "after": {"v": "w"}}}}
        found = self.search(size=0, aggs=aggs)
        self.assertEqual(
            [
                (one["key"]["v"], one["doc_count"])
                for one in found["aggregations"]["p"]["buckets"]
            ],
            [("x", 2), ("y", 2)],
        )
        self.assertEqual(self.search(size=10_001)["status"], 400)

    def test_shards_that_are_not_open(self) -> None:
        """Half a search is 200 with fewer successful; items bear errors of their own."""
        self.fill()
        self.fake.partial = True
        shards = self.search()["_shards"]
        self.assertLess(shards["successful"], shards["total"])
        self.assertEqual(shards["failed"], 0)
        (doc,) = self.get({"_id": "a"})
        self.assertEqual((doc.get("found"), "error" in doc), (None, True))
        (item,) = self.write({"create": {"_id": "b"}}, {"name": "b"})
        self.assertEqual(item["status"], 503)

    def test_a_missing_index(self) -> None:
        """It is told from a missing document; require_alias wants an alias."""
        reply = self.call("GET", "/absent")
        self.assertEqual(reply.status, 404)
        self.assertEqual(reply.body["error"]["type"], "index_not_found_exception")
        (doc,) = self.get({"_id": "1"}, path="/absent/_mget")
        self.assertIn("error", doc)
        lines = [{"create": {"_id": "1"}}, {"name": "a"}]
        body = self.call(
            "POST", "/things-v1/_bulk", lines=lines, query={"require_alias": "true"}
        ).body
        self.assertEqual(body["items"][0]["create"]["status"], 404)

    def test_copies_that_a_write_wants(self) -> None:
        """Too few are refused before anything is written."""
        self.fake.copies = 1
        lines = ({"create": {"_id": "1"}}, {"name": "a"})
        (item,) = self.write(*lines, wait_for_active_shards="2")
        self.assertEqual(item["status"], 503)
        self.assertFalse(self.get({"_id": "1"})[0]["found"])

    def test_settings_as_they_are_told(self) -> None:
        """Settings come back nested, and every value is a text."""
        facts = self.call("GET", "/things").body["things-v1"]
        self.assertEqual(facts["settings"]["index"]["number_of_shards"], "4")
        self.assertEqual(facts["settings"]["index"]["sort"], {"field": ["name"]})
        self.assertEqual(facts["aliases"], {"things": {}})

    def test_a_server_that_is_down(self) -> None:
        """It answers nothing."""
        self.fake.down = True
        failed = start(self.fake.call("GET", "/things"))
        self.failureResultOf(failed, MetadataUnavailable)

    def test_what_it_does_not_know(self) -> None:
        """Every other form is an error of the test, not an empty answer."""
        self.fill()
        unknown: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/things/_doc/1", {}),
            ("DELETE", "/things", {}),
            ("POST", "/things/_search", {"body": {"from": 3}}),
            ("POST", "/things/_search", {"body": {"query": {"fuzzy": {"name": "a"}}}}),
            ("POST", "/things/_search", {"body": {"sort": [{"tags": "asc"}]}}),
            ("POST", "/things/_search", {"body": {"sort": [{"name": "desc"}]}}),
            ("POST", "/things/_search", {"body": {"query": {"term": {"hidden": "a"}}}}),
            ("POST", "/things/_search", {"body": {"query": {"term": {"other": "a"}}}}),
            ("POST", "/things/_search", {"query": {"routing": "r"}, "body": {}}),
            ("POST", "/things/_mget", {"body": {"ids": ["1"]}}),
            (
                "POST",
                "/things/_mget",
                {"body": {"docs": [{"_id": "1", "_index": "x"}]}},
            ),
            ("POST", "/things/_bulk", {"lines": [{"update": {"_id": "1"}}, {}]}),
            (
                "POST",
                "/things/_bulk",
                {"lines": [{"index": {"_id": "1", "version": 1}}, {}]},
            ),
        ]
        for method, path, more in unknown:
            with self.assertRaises((Unsupported, KeyError), msg=(path, more)):
                self.failureResultOf(
                    start(self.fake.call(method, path, **more))
                ).raiseException()
