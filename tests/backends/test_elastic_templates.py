"""The index templates: one text, for the package and for the operator."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.metadata import elastic_documents, elastic_setup
from ostore.model.heads import Archive, Head
from ostore.model.layouts import Layout
from ostore.model.versions import Version

ETC = Path(__file__).parents[2] / "etc" / "elasticsearch"

VERSIONS = tuple(
    Version(
        name="a//b/c",
        number=number,
        hash=f"{number:064x}",
        size=2**62,
        created=number,
        put_id=f"{number:032x}",
        bucket="photos",
        headers={"x-ostore-meta-é": "☃"},
        layout=Layout(4, 2, 2**62, "cd" * 16),
        degraded=(0, 5) if number == 2 else (),
    )
    for number in (1, 2)
)
HEAD = Head("photos", "a//b/c", 9, 9, VERSIONS, (Archive("ab" * 32, 0, 0, 1),))


class TemplateTests(SynchronousTestCase):
    """What lies in etc/ and what the store installs."""

    def test_one_text(self) -> None:
        """Each template in etc/elasticsearch is the one that the package installs."""
        names = {path.stem for path in ETC.glob("*.json")}
        self.assertEqual(names, set(elastic_setup.ALIASES))
        for name in names:
            theirs = json.loads((ETC / f"{name}.json").read_text("utf-8"))
            self.assertEqual(theirs, elastic_setup.template(name))

    def test_they_know_every_field(self) -> None:
        """The mapping, which is strict, has exactly the fields that are written."""
        mappings = elastic_setup.template(elastic_setup.HEADS)["template"]["mappings"]
        self.assertEqual(mappings["dynamic"], "strict")
        head = elastic_documents.head_document(HEAD)
        archive = elastic_documents.archive_document("x", "photos", "n", VERSIONS, 1)
        self.assertEqual({*head, *archive}, set(mappings["properties"]))


class DocumentTests(SynchronousTestCase):
    """Heads and archives as documents."""

    def test_a_head_is_read_as_it_was_written(self) -> None:
        """Through JSON and back nothing of a head, or of an archive, is lost."""
        for head in (HEAD, Head("", "n", 3, 3)):
            document = json.dumps(elastic_documents.head_document(head))
            self.assertEqual(elastic_documents.head_of(json.loads(document)), head)
        kept = elastic_documents.archive_document("x", "photos", "a//b/c", VERSIONS, 1)
        text = json.dumps(kept)
        found = elastic_documents.archived_in(json.loads(text))
        self.assertEqual(found, VERSIONS)

    def test_what_searches_find(self) -> None:
        """Folders by depth, live names, contents, and marks worst first."""
        document = elastic_documents.head_document(HEAD)
        self.assertEqual(document["folder"], "a//b/")
        folders = [f"photos\0{path}" for path in ("0001a/", "0002a//", "0003a//b/")]
        self.assertEqual(document["parents"], folders)
        self.assertEqual(document["hashes"], [one.hash for one in VERSIONS])
        self.assertEqual(document["marks"], [f"{2:064x}/{'cd' * 16}"])
        self.assertEqual(document["degraded"], [f"04/{2:064x}/{'cd' * 16}"])
        (mark,) = elastic_documents.marks_of(document)
        self.assertEqual(mark.missing, (0, 5))
        self.assertEqual(mark.marks, (("photos", "a//b/c", 2),))

    def test_folders_of_what_is_not_live(self) -> None:
        """A name that is deleted, or was, has no folders: pages of them ask no more."""
        marker = Version("a/b", 3, "", 0, 9, deleted=True, put_id="3" * 32)
        for versions in ((marker,), ()):
            head = Head("", "a/b", 3, 9, versions)
            self.assertEqual(elastic_documents.head_document(head)["parents"], [])

    def test_names_and_buckets_never_meet(self) -> None:
        """No two pairs of bucket and name share an id."""
        ids = [
            elastic_documents.head_id(*pair)
            for pair in (("a", "b"), ("", "ab"), ("ab", ""), ("a", "\1b"))
        ]
        self.assertEqual(len(set(ids)), 4)
