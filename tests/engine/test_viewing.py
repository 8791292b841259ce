"""Who is there: worked out once, and never out of date."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ostore.engine.viewing import view
from ostore.model.nodes import Boot, Heartbeat, Members

TIMEOUT = 15.0
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("heard"),
            st.integers(0, 3),
            st.sampled_from(["up", "draining", "full"]),
        ),
        st.tuples(st.just("suspect"), st.integers(0, 3), st.just("")),
        st.tuples(st.just("pass"), st.integers(0, 20), st.just("")),
        st.tuples(st.just("rival"), st.integers(0, 3), st.just("")),
        st.tuples(st.just("join"), st.integers(0, 3), st.just("")),
    ),
    max_size=30,
)


def beat(
    number: int, seq: int, state: str, cluster: str, chance: str = "0"
) -> Heartbeat:
    """What a node says."""
    return Heartbeat(
        node=f"n{number}",
        boot=Boot(1, chance * 16),
        seq=seq,
        url="u",
        zone="z",
        free=1,
        total=2,
        shards=0,
        state=state,
        time=0.0,
        cluster=cluster,
    )


class ViewTests(SynchronousTestCase):
    """view() and View.holds()."""

    @given(STEPS)
    @settings(deadline=None, max_examples=150)
    def test_never_stale(self, steps: list[tuple[str, int, str]]) -> None:
        """As long as a view holds it is what would be worked out now."""
        members, now = Members(TIMEOUT), 0.0
        ours: set[str] = set()
        seen = None
        for seq, (what, number, state) in enumerate(steps):
            if what == "heard":
                members = members.heard(beat(number, seq, state, "c"), now)
            elif what == "rival":
                members = members.heard(beat(number, seq, "up", "c", "1"), now)
            elif what == "suspect":
                members = members.suspect(f"n{number}", now)
            elif what == "join":
                ours ^= {f"n{number}"}
            else:
                now += number
            belong = tuple(node in ours for node in members.by_id)
            fresh = view(members, belong, now)
            if seen is None or not seen.holds(members, belong, now):
                seen = fresh
            for name in (
                "live",
                "asked",
                "suspects",
                "trusted",
                "draining",
                "candidates",
            ):
                self.assertEqual(getattr(seen, name), getattr(fresh, name), name)
            live = [m for m in members.live(now) if m.beat.node in ours]
            self.assertEqual(list(seen.live), live)
            self.assertEqual(
                {
                    n
                    for n in ours
                    if n in members.by_id
                    and n in {m.beat.node for m in members.trusted(now)}
                },
                set(seen.trusted),
            )
