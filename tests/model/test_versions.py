"""Versions as every face shows them."""

from __future__ import annotations

import json
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.conditions import WriteCondition
from ostore.model.digest import EMPTY
from ostore.model.versions import NewVersion, Version


class VersionTests(SynchronousTestCase):
    """The JSON of a version."""

    def test_plain(self) -> None:
        """The six fields of every version, the hash in base64, the time in UTC."""
        shown = Version("a/ä", 3, EMPTY, 0, 1_700_000_000_007).to_json()
        self.assertEqual(
            shown,
            {
                "name": "a/ä",
                "version": 3,
                "size": 0,
                "hash": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
                "created": "2023-11-14T22:13:20.007Z",
                "deleted": False,
            },
        )
        self.assertEqual(json.loads(json.dumps(shown)), shown)

    def test_marker(self) -> None:
        """A delete marker has no hash."""
        shown = Version("a", 2, "", 0, 0, deleted=True).to_json()
        self.assertEqual((shown["hash"], shown["deleted"]), ("", True))
        self.assertEqual(shown["created"], "1970-01-01T00:00:00.000Z")

    def test_headers(self) -> None:
        """Content type and own metadata are shown, other headers are not."""
        headers = {
            "content-type": "text/plain",
            "cache-control": "no-store",
            "x-ostore-meta-owner": "me",
            "x-ostore-meta-a-b": "",
        }
        shown = Version("a", 1, EMPTY, 0, 0, headers=headers).to_json()
        self.assertEqual(shown["content_type"], "text/plain")
        self.assertEqual(shown["metadata"], {"owner": "me", "a-b": ""})
        self.assertNotIn("cache-control", json.dumps(shown))

    @settings(deadline=None)
    @given(st.integers(0, 253_402_300_799_999))
    def test_created(self, created: int) -> None:
        """No millisecond is lost or rounded in the text of a time."""
        text = Version("a", 1, EMPTY, 0, created).created_text
        moment = datetime.fromisoformat(text)
        seconds = int(moment.replace(microsecond=0).timestamp())
        self.assertEqual(seconds * 1000 + moment.microsecond // 1000, created)

    def test_defaults(self) -> None:
        """A new version comes without a condition unless one is given."""
        new = NewVersion("a", "0" * 32)
        self.assertEqual(new.condition, WriteCondition())
        self.assertFalse(hasattr(new.headers, "update"), "defaults are shared")
