"""The forms that both ends of a data node's HTTP share."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.nodes.protocol import (
    ERRORS,
    digest_header,
    error_of,
    facts_from_json,
    facts_to_json,
    holding_from_json,
    holding_to_json,
    list_from_json,
    parse_digest,
    problem_of,
)
from ostore.model.errors import Malformed, NodeUnreachable, ShardMissing, ShardRotten
from ostore.model.layouts import Holding, Layout, ShardFacts

layouts = st.builds(
    Layout,
    st.integers(1, 16),
    st.integers(0, 16),
    st.integers(0, 1 << 62),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
)
shards = layouts.flatmap(
    lambda layout: st.builds(
        ShardFacts,
        st.binary(min_size=32, max_size=32).map(bytes.hex),
        st.integers(0, layout.shards - 1),
        st.just(layout),
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 30).map(float),
        st.sampled_from(("whole", "bad", "garbage")),
    )
)


class ProtocolTests(SynchronousTestCase):
    """JSON there and back, errors there and back."""

    @settings(deadline=None, max_examples=50)
    @given(st.lists(shards, max_size=5))
    def test_round_trip(self, found: list[ShardFacts]) -> None:
        """Holdings come back as they were."""
        holding = Holding("have", tuple(found))
        shown = json.loads(json.dumps(holding_to_json(holding)))
        self.assertEqual(holding_from_json(shown), holding)
        self.assertEqual(list_from_json(shown), found)

    def test_unreadable_footer(self) -> None:
        """A file whose footer cannot be read travels with its id alone."""
        facts = ShardFacts("0" * 64, 1, Layout(0, 0, 0, "a" * 32), 7, 0.0, "bad")
        self.assertEqual(facts_from_json(facts_to_json(facts)), facts)

    @settings(deadline=None, max_examples=100)
    @given(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(("state", "shards", "hash", "k", "index")), inner
                )
            ),
        )
    )
    def test_garbage(self, shown: object) -> None:
        """What is no answer makes the node unreachable and nothing worse."""
        for read in (holding_from_json, list_from_json, facts_from_json):
            try:
                read(shown)
            except NodeUnreachable:
                continue
            self.assertIn("shards", shown)

    def test_errors(self) -> None:
        """Each error of a node is the same error at its caller's."""
        for slug, (status, kind) in ERRORS.items():
            self.assertEqual(problem_of(kind("why")), (status, slug))
            body = json.dumps({"type": f"urn:ostore:problem:{slug}", "detail": "why"})
            error = error_of(status, body.encode())
            self.assertIs(type(error), kind)
            self.assertEqual(str(error), "why")
        self.assertIsNone(problem_of(ValueError()))
        self.assertIsInstance(error_of(502, b"<html>"), NodeUnreachable)
        self.assertIsInstance(
            error_of(500, b'{"type": "about:blank"}'), NodeUnreachable
        )
        self.assertIsNot(ShardMissing, ShardRotten)

    def test_digest(self) -> None:
        """RFC 3230's form, and nothing else."""
        digest = bytes(range(32))
        self.assertEqual(parse_digest(digest_header(digest)), digest)
        for wrong in ("", "SHA-256=", "MD5=abc", "SHA-256=" + "A" * 44):
            with self.assertRaises(Malformed):
                parse_digest(wrong)
