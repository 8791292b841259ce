"""What a sync has to do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.cli.globs import Globs
from ostore.cli.syncing import Filter, There, doubtful, plan, shadowed

SIDE = st.dictionaries(
    st.text("ab/é", min_size=1, max_size=4),
    st.builds(There, st.integers(0, 2), st.sampled_from(["x", "y"])),
)


class PlanTests(SynchronousTestCase):
    """plan, doubtful, shadowed, Filter."""

    @given(SIDE, SIDE, st.booleans())
    @settings(deadline=None, max_examples=200)
    def test_result(
        self, source: dict[str, There], target: dict[str, There], delete: bool
    ) -> None:
        """Done as planned, the target holds the source's, and what else only if kept."""
        todo = plan(source, target, delete=delete)
        after = dict(target)
        for name in todo.copy:
            self.assertNotEqual(source[name], target.get(name))
            after[name] = source[name]
        for name in todo.delete:
            del after[name]
        kept = {} if delete else {n: t for n, t in target.items() if n not in source}
        self.assertEqual(after, {**kept, **source})
        self.assertEqual(set(todo.copy) | set(todo.same), set(source))
        self.assertLessEqual(set(todo.same), set(doubtful(source, target)))

    def test_unknown_hash(self) -> None:
        """What could not be hashed is copied: that will tell why it cannot."""
        unknown = {"a": There(1)}
        self.assertEqual(plan(unknown, unknown, delete=False).copy, ("a",))

    def test_refused(self) -> None:
        """What the target cannot have is neither copied nor deleted."""
        todo = plan({"a": There(1)}, {"a": There(2)}, delete=True, refuse=str.upper)
        self.assertEqual(
            (todo.refused, todo.copy, todo.delete), ((("a", "A"),), (), ())
        )

    def test_shadowed(self) -> None:
        """A name that is also the folder of another is found."""
        names = {name: There(0) for name in ("a", "a/b/c", "a/b", "ab", "x/y")}
        self.assertEqual(shadowed(names), {"a": "a/b", "a/b": "a/b/c"})

    def test_filter(self) -> None:
        """Exclusion goes before inclusion."""
        chosen = Filter(Globs(["*.a"]), Globs(["x*"]))
        taken = [n for n in ("1.a", "x.a", "1.b") if chosen.takes(n)]
        self.assertEqual(taken, ["1.a"])
        self.assertTrue(Filter().takes("anything"))
