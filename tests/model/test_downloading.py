"""Which shards a read asks, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.model.downloading import LEAST_PATIENCE, Download, Source
from tests.model.test_census import LAYOUT

SIX = {index: (node,) for index, node in enumerate("abcdef")}


class DownloadTests(SynchronousTestCase):
    """Facts in, sources out."""

    def test_data_first(self) -> None:
        """Data shards are asked before parity: reading them costs no decoding."""
        download = Download(LAYOUT, SIX)
        self.assertEqual([s.index for s in download.start()], [0, 1, 2, 3])

    def test_replacement(self) -> None:
        """A failed source is replaced by another copy or index, and never comes back."""
        download = Download(LAYOUT, SIX | {0: ("a", "g")})
        first = download.start()[0]
        download.failed(first)
        self.assertEqual(download.more(), Source(4, "e"))
        self.assertEqual(download.more(), Source(5, "f"))
        self.assertEqual(download.more(), Source(0, "g"))
        self.assertIsNone(download.more())

    def test_late_comes_last(self) -> None:
        """A late source is asked again only when no other is left."""
        download = Download(LAYOUT, SIX)
        slow = download.start()[0]
        download.late(slow)
        self.assertEqual(
            [download.more(), download.more()], [Source(4, "e"), Source(5, "f")]
        )
        self.assertEqual(download.more(), slow)

    def test_too_few(self) -> None:
        """Fewer than k places: start() gives what there is."""
        download = Download(LAYOUT, {0: ("a",), 5: ("f",)})
        self.assertEqual(len(download.start()), 2)

    def test_patience(self) -> None:
        """Patience is three times the median, and never below the least."""
        download = Download(LAYOUT, SIX)
        self.assertEqual(download.patience, LEAST_PATIENCE)
        for seconds in (0.1, 0.2, 9.0):
            download.took(seconds)
        self.assertAlmostEqual(download.patience, 0.6)
        for _ in range(64):
            download.took(0.001)
        self.assertEqual(download.patience, LEAST_PATIENCE)

    @given(st.data())
    def test_every_source_is_tried(self, data: st.DataObject) -> None:
        """Whatever fails in whatever order, each source is offered exactly once."""
        places = data.draw(
            st.dictionaries(
                st.integers(0, 5),
                st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True).map(
                    tuple
                ),
            )
        )
        download = Download(LAYOUT, places)
        offered = list(download.start())
        while download.active:
            download.failed(data.draw(st.sampled_from(list(download.active.values()))))
            more = download.more()
            if more is not None:
                offered.append(more)
        everyone = [Source(i, node) for i, nodes in places.items() for node in nodes]
        self.assertEqual(len(offered), len(set(offered)))
        self.assertEqual(set(offered), set(everyone))
