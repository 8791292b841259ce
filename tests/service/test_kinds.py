"""Values of settings: what is read and what is refused."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.service import kinds
from ostore.service.kinds import Address

ANY_KIND: st.SearchStrategy[kinds.Kind] = st.sampled_from(
    [
        kinds.Listen(),
        kinds.Path(),
        kinds.Metadata(("a", "b")),
        kinds.Label(),
        kinds.Url(),
        kinds.broker(),
        kinds.search_server(),
        kinds.Several(kinds.Label()),
        kinds.Switch(),
        kinds.Choice(("a", "b")),
        kinds.Count(1, 9),
        kinds.Duration("1s", "1d"),
    ]
)


class AddressTests(SynchronousTestCase):
    """host:port."""

    def test_forms(self) -> None:
        """IPv4, host names and IPv6 in brackets are read, port 0 too."""
        read = kinds.Listen().read
        self.assertEqual(read("127.0.0.1:8080"), Address("127.0.0.1", 8080))
        self.assertEqual(read("localhost:0"), Address("localhost", 0))
        self.assertEqual(read("[::1]:65535"), Address("::1", 65535))

    def test_text(self) -> None:
        """An address is written as it was read."""
        for text in ("127.0.0.1:8080", "[::1]:80", "store.example.org:1"):
            self.assertEqual(str(kinds.Listen().read(text)), text)

    def test_refused(self) -> None:
        """Missing or impossible parts, and anything around them, are refused."""
        for text in (
            "8080",
            ":8080",
            "::1:8080",
            "[::1]",
            "host:",
            "host:65536",
            "host:-1",
            "host:8o80",
            "ho st:80",
            "host:80\n",
            "http://host:80",
            "",
        ):
            self.assertRaises(ValueError, kinds.Listen().read, text)


class DurationTests(SynchronousTestCase):
    """Times with units."""

    def test_units(self) -> None:
        """Each unit is worth what it says."""
        for text, value in (
            ("500ms", 0.5),
            ("10s", 10),
            ("1.5s", 1.5),
            ("10min", 600),
            ("10m", 600),
            ("24h", 86400),
            ("7d", 604800),
        ):
            self.assertAlmostEqual(kinds.seconds(text), value)

    def test_refused(self) -> None:
        """No unit, unknown units, signs, spaces and other digits are refused."""
        for text in (
            "10",
            "10 s",
            "-1s",
            "1w",
            "s",
            "1s ",
            "1e3s",
            "\u0661s",
            "1,5s",
            "",
        ):
            self.assertRaises(ValueError, kinds.seconds, text)

    def test_bounds(self) -> None:
        """The bounds belong to what is allowed; beyond them nothing does."""
        kind = kinds.Duration("10ms", "1h")
        self.assertEqual(kind.read("1h"), 3600)
        self.assertAlmostEqual(kind.read("10ms"), 0.01)
        self.assertRaises(ValueError, kind.read, "9ms")
        self.assertRaises(ValueError, kind.read, "61min")


class OtherKindsTests(SynchronousTestCase):
    """Counts, switches, words, paths, metadata."""

    def test_count(self) -> None:
        """Numbers are read from text and TOML, within their bounds."""
        kind = kinds.Count(1, 32)
        self.assertEqual(kind.read("32"), 32)
        self.assertEqual(kind.read(1), 1)
        for raw in ("0", "33", 33, -1, True, 1.0, "1.0", "+1", "0x1", " 1", "", None):
            self.assertRaises(ValueError, kind.read, raw)

    def test_nothing_of_a_size(self) -> None:
        """0 needs no unit, in text and in TOML; all else does."""
        kind = kinds.Size("0", "1MiB")
        for raw in ("0", 0, "0B"):
            self.assertEqual(kind.read(raw), 0)
        for wrong in (1, 1024, "1", 0.0, False, None):
            self.assertRaises(ValueError, kind.read, wrong)
        self.assertRaises(ValueError, kinds.Size("1B", "1MiB").read, 0)

    def test_switch(self) -> None:
        """All spellings of on and off, in any case, and TOML booleans."""
        kind = kinds.Switch()
        for raw in ("on", "ON", "true", "yes", "1", True):
            self.assertIs(kind.read(raw), True)
        for raw in ("off", "False", "no", "0", False):
            self.assertIs(kind.read(raw), False)
        for wrong in ("", "maybe", "onn", 1, 0, None):
            self.assertRaises(ValueError, kind.read, wrong)

    def test_choice(self) -> None:
        """Only the words themselves."""
        kind = kinds.Choice(("strict", "relaxed"))
        self.assertEqual(kind.read("relaxed"), "relaxed")
        self.assertRaises(ValueError, kind.read, "Strict")
        self.assertEqual(kind.allowed, "strict or relaxed")

    def test_metadata(self) -> None:
        """The word alone leaves the path open; another scheme or no path is refused."""
        kind = kinds.Metadata(("sqlite",))
        self.assertIsNone(kind.read("sqlite"))
        self.assertEqual(kind.read("sqlite:/a:b"), "/a:b")
        for raw in ("", "sqlite:", "elastic", "SQLITE", "sqlite\n"):
            self.assertRaises(ValueError, kind.read, raw)
        kind = kinds.Metadata(("elastic",))
        self.assertIsNone(kind.read("elastic"))
        self.assertRaises(ValueError, kind.read, "sqlite")
        self.assertEqual(kind.allowed, "elastic or sqlite:PATH")

    def test_path(self) -> None:
        """A path is anything that can be printed and is not empty."""
        self.assertEqual(kinds.Path().read("./a b"), "./a b")
        self.assertRaises(ValueError, kinds.Path().read, "")
        self.assertRaises(ValueError, kinds.Path().read, "a\0b")

    def test_label(self) -> None:
        """A short printable text, without white space around it."""
        self.assertEqual(kinds.Label().read(" rack 4 "), "rack 4")
        self.assertEqual(kinds.Label().read("é" * 64), "é" * 64)
        for raw in ("", " ", "a" * 65, "a\nb", "a\0", 1, None):
            self.assertRaises(ValueError, kinds.Label().read, raw)

    def test_several(self) -> None:
        """Commas separate in text; lists are taken as they are; none is not enough."""
        kind = kinds.Several(kinds.Label())
        self.assertEqual(kind.read("a, b ,a"), ("a", "b", "a"))
        self.assertEqual(kind.read(["a,b", "c"]), ("a,b", "c"))
        for raw in ("", ",", "a,", "a,,b", [], [1], [["a"]], {"a": 1}, 1, None):
            self.assertRaises(ValueError, kind.read, raw)


class UrlTests(SynchronousTestCase):
    """Where services and servers are."""

    def test_services(self) -> None:
        """Scheme, host and port, no more; written in one way."""
        read = kinds.Url().read
        self.assertEqual(read("http://127.0.0.1:8081"), "http://127.0.0.1:8081")
        self.assertEqual(read("HTTPS://Node-1.example:1/"), "https://node-1.example:1")
        self.assertEqual(read("http://[FE80::1]:65535"), "http://[fe80::1]:65535")
        for text in (
            "",
            "node:8081",
            "http://node",
            "http://node:0",
            "http://node:65536",
            "http://:80",
            "http://u:p@node:80",
            "http://node:80/x",
            "http://node:80?x",
            "ftp://node:80",
            "http://node:80\n",
        ):
            self.assertRaises(ValueError, read, text)

    def test_brokers(self) -> None:
        """URLs of amqp and amqps, as they are given."""
        read = kinds.broker().read
        for text in (
            "amqp://host",
            "amqp://guest:guest@127.0.0.1:5672/",
            "amqps://u:p%40ss@[::1]:5671/a%2Fb",
        ):
            self.assertEqual(read(text), text)
        for text in (
            "",
            "host:5672",
            "http://host",
            "amqp://",
            "amqp://:5672",
            "amqp://host:0",
            "amqp://host:65536",
            "amqp://host:x",
            "amqp://host/v?x=1",
            "amqp://host/v#x",
            "amqp://ho st",
            "amqp://hôst",
            "amqp://host\n",
            "amqp://[::1",
        ):
            self.assertRaises(ValueError, read, text)

    def test_search_servers(self) -> None:
        """host:port is short for a URL."""
        read = kinds.search_server().read
        self.assertEqual(read("host:9200"), "http://host:9200")
        self.assertEqual(read("u:p@host:9200"), "http://u:p@host:9200")
        self.assertEqual(read("[::1]:9200"), "http://[::1]:9200")
        self.assertEqual(read("https://u:p@host/x"), "https://u:p@host/x")
        for text in ("", "amqp://host", "host:x", "host:1?a", ":9200", "http://"):
            self.assertRaises(ValueError, read, text)

    @settings(deadline=None, max_examples=150)
    @given(
        ANY_KIND,
        st.one_of(
            st.text(max_size=30),
            st.integers(),
            st.floats(),
            st.none(),
            st.booleans(),
            st.lists(st.integers(), max_size=2),
        ),
    )
    def test_anything(self, kind: kinds.Kind, raw: object) -> None:
        """Whatever is given, a kind reads it or raises ValueError, and says why."""
        self.assertTrue(kind.allowed)
        try:
            kind.read(raw)
        except ValueError as error:
            self.assertIsInstance(error, ValueError)
