"""Services that die, end in peace, and are replaced one by one, under load."""

from __future__ import annotations

from signal import SIGTERM

from tests.live.cases import TROUBLE, leaks, shared
from tests.live.load import LoadCase
from tests.support.livecluster import Service

LARGE = (8 << 20) + 1


class RestartTests(LoadCase):
    """One after the other."""

    def test_api_killed(self) -> None:
        """An api is killed again and again while both are in use: nothing is lost."""
        api = self.cluster.apis[1]
        with self.load(cuts=True) as load:
            for _ in range(3):
                self.more(load, 10)
                api.kill()
                self.more(load, 10)
                api.start()
                api.wait()
        self.until_up()
        self.assert_none_lost(load)
        self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_rolling(self) -> None:
        """Every service ended and started again: nothing is lost or refused for long."""
        with self.load(cuts=True) as load:
            for service in self.cluster.services:
                self.more(load, 3)
                self.assert_peaceful(service)
                service.start()
                service.wait()
                self.until_up()
            self.more(load, 5)
        self.assert_none_lost(load)
        refused = load.counts["PUT 503"] + load.counts["GET 503"]
        self.assertLess(refused, load.done / 4, load.counts)

    def test_data_killed(self) -> None:
        """Data services killed in turn under load: what was acknowledged is there."""
        with self.load() as load:
            for service in self.cluster.data:
                service.kill()
                self.more(load, 3)
                service.start()
                service.wait()
                self.until_up()
        self.assert_none_lost(load)

    def test_finishes(self) -> None:
        """A PUT under way is finished by an api that was told to end."""
        content, name = self.new(LARGE), self.name()
        api = self.cluster.apis[0]
        asking = self.asking()
        asking.head("PUT", f"/objects/{name}", (), len(content))
        asking.send(content[:-1000])
        self.until(self.temporaries, "temporaries")
        api.running.terminate()
        self.until(lambda: "Closed" in api.running.stdout, "it listens no more")
        self.assertTrue(api.alive)
        asking.send(content[-1000:])
        self.assertEqual(asking.answer().status, 200)
        asking.close()
        self.assertEqual(api.running.ended(), -SIGTERM)
        self.assertEqual(self.get(name, api=1).body, content)

    def assert_peaceful(self, service: Service) -> None:
        """SIGTERM ends it, and it has nothing to complain of."""
        self.assertEqual(service.stop(), -SIGTERM)
        said = service.running.stdout + service.running.stderr
        self.assertIn("Server Shut Down", said)
        for word in TROUBLE:
            self.assertNotIn(word, said)


class StopTests(LoadCase):
    """The end of all of them."""

    def test_stop_under_load(self) -> None:
        """All told to end at once under load: they do, and are right afterwards."""
        with self.load(cuts=True) as load:
            self.more(load, 20)
            statuses = self.cluster.stop()
        self.assertEqual(set(statuses), {-SIGTERM})
        self.assertEqual([s for s in self.cluster.services if s.alive], [])
        self.assertEqual(leaks(self.cluster), [])
        self.cluster.revive()
        self.until_up()
        self.assert_none_lost(load)

    def test_all_killed_under_load(self) -> None:
        """All killed at once, as by a power cut: what was acknowledged is there."""
        with self.load(cuts=True) as load:
            self.more(load, 30)
            self.cluster.close()
        self.cluster.revive()
        self.until_up()
        self.assert_none_lost(load)
        self.until(lambda: not self.temporaries(), "temp/ empty")

    def test_nothing_outlives_them(self) -> None:
        """When the cluster is closed, no process of it is left."""
        running = [service.running for service in self.cluster.services]
        shared.close()
        self.assertTrue(all(child.status is not None for child in running))
        self.cluster = shared.get()
