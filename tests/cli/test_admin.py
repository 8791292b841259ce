"""`ostore admin` against a real standalone, and against one that is not well."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import attrs

from ostore.cli.admin.asking import Administration
from ostore.model.signing import SCHEME, Guard, Nonces, Unsigned, WrongTime
from tests.cli.lying import Asked, LyingTestCase, Said, problem
from tests.cli.support import NOW, CommandTestCase, ServiceTestCase, shared_secret
from tests.support.child import serve

SECRET = "s" * 40
NODE: Mapping[str, Any] = {
    "id": "a" * 32,
    "url": "nodes/1",
    "zone": "here",
    "state": "up",
    "free": 50 << 30,
    "total": 100 << 30,
    "shards": 7,
    "last_heard": 1.5,
}
VIEW: Mapping[str, Any] = {
    "nodes": [NODE, {**NODE, "id": "ab" + "c" * 30}],
    "faults": [],
    "repairs": {"waiting": 0, "worst": None},
    "jobs": {
        "scrub": {"last": None, "next": "2027-01-15T09:00:00.000Z", "state": None},
        "census": {"last": "2027-01-15T07:00:00.000Z", "next": None, "state": "done"},
    },
    "codec": "zfec",
    "version": "0.1.0",
}
RUN: Mapping[str, Any] = {
    "id": "1234",
    "job": "scrub",
    "state": "running",
    "started": "2027-01-15T07:59:00.000Z",
    "ended": None,
    "dry_run": False,
    "counts": {"contents": 3},
}


def said(value: object, code: int = 200, **headers: str) -> Said:
    """An answer in JSON."""
    return Said(code, headers, json.dumps(value).encode())


class RealTests(ServiceTestCase):
    """A standalone."""

    def test_status(self) -> None:
        """It is ready, and says how it is."""
        out = self.done("admin", "status").out
        self.assertIn("state:    ready", out)
        self.assertIn("nodes:    6 of 6 up", out)
        (facts,) = self.done("admin", "status", "--json").items
        self.assertTrue(facts["ready"])
        self.assertEqual(len(facts["nodes"]), 6)

    def test_nodes_and_jobs(self) -> None:
        """Tables for people, the facts of /cluster for programs."""
        table = self.done("admin", "nodes").out.splitlines()
        self.assertEqual(len(table), 7)
        self.assertTrue(table[0].startswith("NODE"))
        items = self.done("admin", "nodes", "--json").items
        self.assertEqual({item["state"] for item in items}, {"up"})
        jobs = {item["job"] for item in self.done("admin", "jobs", "--json").items}
        self.assertIn("orphans", jobs)
        self.assertIn("orphans", self.done("admin", "jobs").out)

    def test_run(self) -> None:
        """A job is begun, waited for and shown, with the secret alone."""
        secret = ("--cluster-secret-file", str(shared_secret()))
        words = ("admin", "run", "retention", "--dry-run", "--json", *secret)
        (begun,) = self.done(*words).items
        self.assertTrue(begun["dry_run"])
        shown = self.done("admin", "jobs", begun["id"]).out
        self.assertIn(f"retention {begun['id']}", shown)
        self.assertEqual(self.ostore("admin", "jobs", "nix").status, 3)
        result = self.ostore("admin", "run", "nix", *secret)
        self.assertEqual(result.status, 3)
        self.assertIn("there is: ", result.err)
        self.assertEqual(self.ostore("admin", "run", "orphans").status, 2)
        self.file("wrong", b"w" * 40)
        result = self.ostore(*words[:-1], "wrong")
        self.assertEqual(result.status, 1)
        self.assertIn("--cluster-secret-file", result.err)

    def test_scrub_and_repair(self) -> None:
        """Everything is read, and what is missing is put back while one waits."""
        secret = ("--cluster-secret-file", str(shared_secret()))
        content = b"x" * 100_000
        self.done("put", "-", "a", stdin=content)
        (run,) = self.done("admin", "scrub", "--wait", "--json", *secret).items
        self.assertEqual(run["state"], "done")
        (run,) = self.done("admin", "repair", "--wait", "--json", *secret).items
        self.assertEqual(run["state"], "done")
        self.assertEqual(self.done("cat", "a").raw, content)

    def test_doctor(self) -> None:
        """A service that is well has no problem but those of this machine's disk."""
        result = self.ostore(
            "admin",
            "doctor",
            "--json",
            "--cluster-secret-file",
            str(shared_secret()),
        )
        found = {item["check"]: item for item in result.items}
        self.assertEqual(found[f"service {self.endpoint}"]["state"], "ok")
        self.assertEqual(found["cluster secret"]["state"], "ok")
        # This test's clock stands years ahead.
        self.assertEqual(found["clock of the service"]["state"], "problem")
        nodes = [item for name, item in found.items() if name.startswith("node ")]
        self.assertEqual([item["state"] for item in nodes], ["ok"] * 6)


class DrainTests(CommandTestCase):
    """A standalone of its own, whose nodes speak often."""

    def states(self) -> dict[str, str]:
        """Each node's state."""
        items = self.done("admin", "nodes", "--json").items
        return {item["id"]: item["state"] for item in items}

    def until(self, node: str, state: str) -> None:
        """Look until the node says so."""
        for _ in range(2000):
            if self.states()[node] == state:
                return
            time.sleep(0.02)
        self.fail(f"the node is never {state}")

    def test_drain(self) -> None:
        """A node is drained and taken back, by the beginning of its id."""
        root = self.folder / "data"
        service = serve(root, "--heartbeat", "100ms")
        self.addCleanup(service.close)
        self.endpoint = f"http://127.0.0.1:{service.ready()}"
        secret = ("--cluster-secret-file", str(root / "secret"))
        node = min(self.states())
        self.assertIn(node, self.done("admin", "drain", node[:20], *secret).out)
        self.until(node, "draining")
        self.assertIn("5 of 6 up (draining)", self.done("admin", "status").out)
        self.done("admin", "undrain", node[:20], *secret)
        self.until(node, "up")


class SignedTests(LyingTestCase):
    """Signatures, as the service's own guard checks them."""

    def setUp(self) -> None:
        """A service whose clock stands an hour behind."""
        super().setUp()
        self.file("secret", SECRET.encode())
        self.behind = 3600.0
        self.seen: list[str] = []

    def guarded(self, asked: Asked, _: int) -> Said:
        """Lets in what is signed."""
        if asked.method == "GET":
            return said(VIEW if asked.target == "/cluster" else RUN)
        now = NOW - self.behind
        host = self.endpoint.removeprefix("http://")
        guard = Guard([SECRET.encode()], lambda: {host}, lambda: now, Nonces())
        try:
            guard.check(asked.method, asked.target, asked.headers.get)
        except WrongTime:
            headers = {"X-Ostore-Now": f"{now:.3f}"}
            return problem(401, "wrong-time", "not of now", **headers)
        except Unsigned as error:
            return problem(401, "unsigned", str(error))
        self.seen.append(asked.target)
        if asked.target.startswith("/cluster/nodes/"):
            return said({"id": "x"}, 202)
        if asked.target.startswith("/cluster/adopt"):
            return said({"epoch": 7, "nothing_removed_for": 604800.0})
        return said({**RUN, "state": "done"}, 202)

    def admin(self, *words: str) -> tuple[int, str]:
        """Status, and what was complained of."""
        result = self.ostore("admin", *words, "--cluster-secret-file", "secret")
        return result.status, result.err

    def test_wrong_clock(self) -> None:
        """A clock that is wrong here does no harm: the service's own is gone by."""
        self.script = self.guarded
        self.assertEqual(self.admin("scrub", "--dry-run"), (0, ""))
        # Once while the request is read, once when it is answered.
        self.assertEqual(set(self.seen), {"/cluster/jobs/scrub?dry_run=1"})

    def test_orders(self) -> None:
        """Every order goes to its route."""
        self.behind = 0.0
        self.script = self.guarded
        for words, target in (
            (("scrub",), "/cluster/jobs/scrub"),
            (("run", "orphans", "--force"), "/cluster/jobs/orphans?force=1"),
            (("repair",), "/cluster/jobs/census"),
            (("drain", "aa"), f"/cluster/nodes/{'a' * 32}/drain"),
            (("undrain", "ab"), f"/cluster/nodes/ab{'c' * 30}/undrain"),
        ):
            del self.seen[:]
            self.assertEqual(self.admin(*words), (0, ""), words)
            self.assertEqual(set(self.seen), {target})

    def test_adopt(self) -> None:
        """An older copy is taken for right only when one insists."""
        self.behind = 0.0
        self.script = self.guarded
        status, err = self.admin("adopt")
        self.assertEqual((status, self.seen), (2, []))
        self.assertIn("--force", err)
        words = ("admin", "adopt", "--force", "--cluster-secret-file", "secret")
        told = self.ostore(*words)
        self.assertEqual((told.status, set(self.seen)), (0, {"/cluster/adopt?force=1"}))
        self.assertIn("epoch 7; nothing is removed for 7 d", told.out)
        self.assertEqual(self.ostore(*words, "--json").items[0]["epoch"], 7)

    def test_nothing_to_adopt(self) -> None:
        """A refusal is told in the service's words."""
        self.script = lambda _, __: problem(409, "conflict", "jobs are running already")
        status, err = self.admin("adopt", "--force")
        self.assertEqual(status, 1)
        self.assertIn("jobs are running already", err)
        self.assertEqual(len(self.asked), 1)

    def test_which_node(self) -> None:
        """An unknown node is status 3, an ambiguous one status 2; nothing is asked."""
        self.script = self.guarded
        self.assertEqual(self.admin("drain", "x")[0], 3)
        self.assertEqual(self.admin("drain", "a")[0], 2)
        self.assertEqual(self.seen, [])

    def test_wrong_secret(self) -> None:
        """A wrong secret is told, and not tried again and again."""
        self.script = self.guarded
        self.file("secret", b"t" * 40)
        status, err = self.admin("scrub")
        self.assertEqual(status, 1)
        self.assertIn("--cluster-secret-file", err)
        self.assertEqual(len(self.asked), 1)
        self.assertIn(SCHEME, self.asked[0].headers["Authorization"])
        self.assertNotIn("t" * 40, err)

    def test_no_good_clock(self) -> None:
        """A service that is never content with the time is left."""
        self.script = lambda _, __: problem(
            401, "wrong-time", "no", **{"X-Ostore-Now": "12"}
        )
        self.assertEqual(self.admin("scrub")[0], 1)
        self.assertEqual(len(self.asked), 2)

    def test_wait(self) -> None:
        """--wait looks until the run has ended; a failed one is status 1."""
        self.behind = 0.0

        def script(asked: Asked, number: int) -> Said:
            if asked.method == "POST":
                answer = self.guarded(asked, number)
                return attrs.evolve(answer, body=json.dumps(RUN).encode())
            ended = {**RUN, "state": "failed", "why": "clocks are apart"}
            return said(ended if number > 3 else RUN)

        self.script = script
        status, err = self.admin("scrub", "--wait")
        self.assertEqual(status, 1)
        self.assertIn("clocks are apart", err)
        self.assertEqual(self.waits, [1.0] * 4)

    def test_wait_no_longer(self) -> None:
        """--timeout ends the wait."""
        self.behind = 0.0
        self.script = lambda asked, n: (
            said(RUN) if asked.method == "GET" else said(RUN, 202)
        )
        status, err = self.admin("scrub", "--wait", "--timeout", "5s")
        self.assertEqual(status, 1)
        self.assertIn("still runs", err)
        self.assertEqual(len(self.waits), 5)

    def test_repair_waits_for_the_queue(self) -> None:
        """`repair --wait` stays until no content waits."""
        waiting = iter([3, 2, 0])
        done = {**RUN, "state": "done"}

        def script(asked: Asked, _: int) -> Said:
            if asked.target != "/cluster":
                return said(done, 202 if asked.method == "POST" else 200)
            return said(VIEW)

        self.script = script
        real = Administration.view

        def view(asking: Administration) -> Any:
            found = real(asking)
            if self.asked and any(a.method == "POST" for a in self.asked):
                return attrs.evolve(found, waiting=next(waiting))
            return found

        self.patch(Administration, "view", view)
        self.assertEqual(self.admin("repair", "--wait"), (0, ""))
        self.assertEqual(len(self.waits), 2)


class ShownTests(LyingTestCase):
    """status, nodes, jobs and doctor of services that are not well."""

    def serve(
        self, view: object, reasons: tuple[str, ...] = (), **headers: str
    ) -> None:
        """Show that."""

        def script(asked: Asked, _: int) -> Said:
            if asked.target == "/cluster":
                return said(view)
            if asked.target == "/health/ready":
                ready = {"ready": not reasons, "reasons": list(reasons)}
                return said(ready, 503 if reasons else 200)
            return said({}, 200, **headers)

        self.script = script

    def test_not_ready(self) -> None:
        """Status 1, and why."""
        self.serve(VIEW, ("the bus is away",))
        result = self.ostore("admin", "status")
        self.assertEqual(result.status, 1)
        self.assertIn("NOT READY: the bus is away", result.out)
        self.assertEqual(self.waits, [])

    def test_jobs(self) -> None:
        """Times are told as people do."""
        self.serve(VIEW)
        lines = self.done("admin", "jobs").out.splitlines()
        self.assertEqual(lines[1].split(), ["census", "60", "min", "ago", "done", "-"])
        self.assertEqual(lines[2].split(), ["scrub", "-", "-", "in", "60", "min"])

    def test_doctor(self) -> None:
        """Each fault is found, and what to mend is said."""
        view = {
            **VIEW,
            "nodes": [
                {**NODE, "state": state, "id": state * 4, "free": free << 30}
                for state, free in (
                    ("up", 50),
                    ("down", 50),
                    ("full", 1),
                    ("conflict", 9),
                    ("scanning", 50),
                    ("of-tomorrow", 50),
                )
            ],
            "faults": ["nodes/3: its root cannot be written"],
            "repairs": {"waiting": 4, "worst": 5},
            "jobs": {
                "scrub": {"last": None, "next": None, "state": "failed"},
                "census": {"last": None, "next": "2027-01-15T01:00:00.000Z"},
            },
        }
        self.serve(view, ("fewer nodes than write-quorum",))
        result = self.ostore("admin", "doctor", "--json")
        self.assertEqual(result.status, 1)
        found = {item["check"]: item for item in result.items}
        states = {
            name: item["state"]
            for name, item in found.items()
            if name.startswith(("node ", "disk", "job", "repairs"))
        }
        self.assertEqual(
            states,
            {
                "node upupupup": "ok",
                "disk of node upupupup": "ok",
                "node downdowndown": "problem",
                "node fullfullfull": "problem",
                "disk of node fullfullfull": "problem",
                "node conflictconf": "problem",
                "disk of node conflictconf": "warning",
                "node scanningscan": "warning",
                "disk of node scanningscan": "ok",
                "node of-tomorrowo": "warning",
                "disk of node of-tomorrowo": "ok",
                "repairs": "warning",
                "job scrub": "problem",
                "job census": "warning",
            },
        )
        self.assertEqual(found["node"]["detail"], "nodes/3: its root cannot be written")
        for item in found.values():
            if item["state"] != "ok" and "tomorrow" not in item["check"]:
                self.assertTrue(item["mend"], item)
        text = self.ostore("admin", "doctor").out
        self.assertIn("PROBLEM  node downdowndown: down", text)
        self.assertIn("-> start its service", text)

    def test_clocks(self) -> None:
        """A clock that is apart is a warning, far apart a problem."""
        for seconds, state in ((0, "ok"), (30, "warning"), (3600, "problem")):
            minutes, rest = divmod(seconds, 60)
            hours, minutes = divmod(minutes, 60)
            date = f"Fri, 15 Jan 2027 {8 + hours:02}:{minutes:02}:{rest:02} GMT"
            self.serve(VIEW, Date=date)
            items = self.ostore("admin", "doctor", "--json").items
            found = {item["check"]: item["state"] for item in items}
            self.assertEqual(found["clock of the service"], state)

    def test_foreign(self) -> None:
        """What is no cluster is told so."""
        values: tuple[Any, ...] = (
            None,
            [],
            {},
            {**VIEW, "nodes": [3]},
            {**VIEW, "jobs": 3},
        )
        for value in values:
            self.serve(value)
            for words in (("status",), ("nodes",), ("jobs",)):
                result = self.ostore("admin", *words)
                self.assertEqual(result.status, 1)
                self.assertIn("is this an ostore?", result.err)
            self.assertEqual(self.ostore("admin", "doctor").status, 1)

    def test_nobody(self) -> None:
        """Where nobody answers, doctor says so in a line."""
        self.endpoint = "http://127.0.0.1:1"
        result = self.ostore("admin", "doctor", "--retries=0")
        self.assertEqual(result.status, 1)
        self.assertIn("PROBLEM  service http://127.0.0.1:1", result.out)
