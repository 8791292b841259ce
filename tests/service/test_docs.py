"""What the pages say that can be checked against the code and the checkout."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.settings import VARIABLES
from ostore.model.names import MAX_NAME
from ostore.model.versions import MAX_KEPT
from ostore.service.config import resolve
from ostore.service.settings import CONFIG, SETTINGS
from ostore.streaming.problem import TABLE

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")])

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get."""
    plain = (re.sub(r"[^\w\- ]", "", h.lower()) for h in _HEADING.findall(text))
    return {heading.replace(" ", "-") for heading in plain}


class PageTests(SynchronousTestCase):
    """README, CHANGELOG and docs/."""

    def test_links(self) -> None:
        """Every relative link leads to a file, and to a heading where it names one."""
        checked, wrong = 0, []
        for page in PAGES:
            for target, anchor in _LINK.findall(page.read_text("utf-8")):
                if target.startswith("http"):
                    continue
                checked += 1
                there = page.parent / target if target else page
                if not there.exists():
                    wrong.append((page.name, target))
                elif anchor and anchor not in anchors(there.read_text("utf-8")):
                    wrong.append((page.name, f"{target}#{anchor}"))
        self.assertEqual(wrong, [])
        self.assertGreater(checked, 10)

    def test_every_page_is_reachable(self) -> None:
        """README leads to every page of docs/."""
        text = (CHECKOUT / "README.md").read_text("utf-8")
        for page in CHECKOUT.glob("docs/*.md"):
            self.assertIn(f"(docs/{page.name})", text)

    def test_problems(self) -> None:
        """docs/http.md has a row for each problem type, with its status."""
        text = (CHECKOUT / "docs/http.md").read_text("utf-8")
        for _, status, slug, _ in TABLE:
            self.assertIn(f"| {status} | `{slug}` |", text)

    def test_limits(self) -> None:
        """docs/http.md gives the limits that the code has."""
        text = (CHECKOUT / "docs/http.md").read_text("utf-8")
        self.assertIn(f"| name | 1 to {MAX_NAME} bytes |", text)
        self.assertIn(f"| kept headers | {MAX_KEPT} bytes", text)
        defaults = {setting.key: setting.default for setting in SETTINGS}
        for key, default, said in (
            ("max-head", "16KiB", "16,384 bytes each ([`max-head`]"),
            ("head-timeout", "30s", "| 30 s (`head-timeout`)"),
            ("idle-timeout", "60s", "| 60 s (`idle-timeout`)"),
            ("min-progress", "1KiB", "1 KiB in each `idle-timeout` (`min-progress`)"),
            ("max-connections", "8192", "| 8,192 (`max-connections`)"),
            (
                "max-connections-per-address",
                "4096",
                "4,096 of them from one address (`max-connections-per-address`)",
            ),
        ):
            self.assertEqual(defaults[key], default)
            self.assertIn(said, text)


class OperationsTests(SynchronousTestCase):
    """docs/operations.md."""

    def setUp(self) -> None:
        """Read it."""
        self.text = (CHECKOUT / "docs/operations.md").read_text("utf-8")
        self.blocks = _BLOCK.findall(self.text)

    def test_files(self) -> None:
        """Its TOML files are accepted by the services that they are for."""
        data, api, tls = (text for kind, text in self.blocks if kind == "toml")
        for role, text in (("data", data), ("data", data + tls), ("api", api)):
            path = self.mktemp()
            Path(path).write_text(text, "utf-8")
            settings = resolve(role, {"config": path}, {})
            self.assertGreater(len(settings.rabbitmq_server), 1)

    def test_variables(self) -> None:
        """Every variable of the environment on any page is one of ours."""
        known = {setting.variable for setting in (*SETTINGS, CONFIG)} | VARIABLES
        found = set()
        for page in PAGES:
            found |= set(re.findall(r"OSTORE_[A-Z_]+[A-Z]", page.read_text("utf-8")))
        self.assertLessEqual(found, known)
        self.assertGreater(len(found), 5)

    def test_shipped(self) -> None:
        """What it takes from share/ostore lies in etc/."""
        named = set(re.findall(r"share/ostore/([\w./-]+)", self.text))
        for each in named:
            self.assertTrue((CHECKOUT / "etc" / each).is_file(), each)
        self.assertGreater(len(named), 2)
