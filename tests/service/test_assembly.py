"""The engine put together as settings say."""

from __future__ import annotations

from unittest import mock

from ostore.erasure import isal
from ostore.service import assembly
from ostore.service.failing import StartError
from tests.support.engine import EngineCase


class CodecTests(EngineCase):
    """`--codec`, from the setting to what `/cluster` says."""

    def test_zfec(self) -> None:
        """Zfec is taken when it is asked for."""
        self.rise(codec="zfec")
        self.assertEqual(self.store.view()["codec"], "zfec")

    def test_auto_without_isal(self) -> None:
        """Without ISA-L auto is zfec, and the engine works."""
        with self.no_isal():
            self.rise(codec="auto")
        self.assertEqual(self.store.view()["codec"], "zfec")
        self.run_(self.put(b"content"))
        self.assertEqual(self.run_(self.get()), b"content")

    def test_one_line_when_it_is_missing(self) -> None:
        """A start that insists on ISA-L where there is none is refused in one line."""
        with self.no_isal(), self.assertRaises(StartError) as caught:
            assembly.codecs_named("isal")
        self.assertEqual(
            str(caught.exception),
            "codec isal: ISA-L is not installed; the package pyeclib brings it:"
            " allowed is auto or zfec",
        )

    def no_isal(self) -> mock._patch[str]:
        """A machine without the library."""
        self.patch(isal, "_bundled", list)
        return mock.patch.object(isal, "_INSTALLED", "libnone.so.0")
