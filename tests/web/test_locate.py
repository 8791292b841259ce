"""`/locate/{hash}` and `/cluster` as a client sees them."""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

from tests.web.serving import Served


def with_all_signs() -> bytes:
    """A SHA-256 whose base64 has both `+` and `/`."""
    for number in range(1000):
        digest = hashlib.sha256(b"%d" % number).digest()
        if {b"+", b"/"} <= {b64encode(digest)[i : i + 1] for i in range(44)}:
            return digest
    raise AssertionError


class LocateTests(Served):
    """`GET /locate/{hash}`."""

    async def test_spellings(self) -> None:
        """Hex, base64 (encoded or as it is) and base64url name the same content."""
        digest = with_all_signs()
        places = {10: "nodes/5", 0: "nodes/1", 2: "nodes/3"}
        self.store.locations[digest.hex()] = places
        plain = b64encode(digest).decode()
        url = urlsafe_b64encode(digest).decode()
        for text in (
            digest.hex(),
            digest.hex().upper(),
            quote(plain, safe=""),
            plain,
            url,
            url.rstrip("="),
        ):
            answer = await self.ask("GET", f"/locate/{text}")
            self.assertEqual(answer.status, 200, text)
            self.assertEqual(answer.get("content-type"), "application/json")
            self.assertEqual(
                list(answer.json().items()),
                [("0", "nodes/1"), ("2", "nodes/3"), ("10", "nodes/5")],
            )

    async def test_unknown(self) -> None:
        """A content nobody holds is 404."""
        self.assert_problem(await self.ask("GET", f"/locate/{'0' * 64}"), 404)

    async def test_malformed(self) -> None:
        """Whatever is no SHA-256 is 400."""
        for text in ("", "abc", "0" * 63, "g" * 64, "%ff%fe", "A" * 43 + "%3D%3D"):
            self.assert_problem(await self.ask("GET", f"/locate/{text}"), 400)


class ClusterTests(Served):
    """`GET /cluster`."""

    async def test_view(self) -> None:
        """The store's view as JSON, without a signature."""
        answer = await self.ask("GET", "/cluster")
        self.assertEqual(answer.get("content-type"), "application/json")
        self.assertEqual(answer.json(), self.store.view())
