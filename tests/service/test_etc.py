"""What etc/ says to systemd and RabbitMQ, held to the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ostore.backends.bus.amqp.bus import TOPICS
from ostore.backends.bus.amqp.session import REPLY_TO
from ostore.model.messages import API_TOPIC, DATA_TOPIC
from ostore.service.falling import GRACE
from ostore.service.settings import CONFIG, rows
from twisted.plugins import ostore_plugins

CHECKOUT = Path(__file__).parents[2]
ROLES = ("api", "data")


class Unit:
    """A unit file: every value of every key of [Service]."""

    def __init__(self, name: str) -> None:
        text = (CHECKOUT / f"etc/systemd/{name}.service").read_text("utf-8")
        service = text.partition("[Service]\n")[2].partition("\n[")[0]
        self.values: dict[str, list[str]] = {}
        for line in service.replace("\\\n", " ").splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self.values.setdefault(key, []).append(value)

    def __getitem__(self, key: str) -> str:
        (value,) = self.values[key]
        return value


class UnitTests(SynchronousTestCase):
    """etc/systemd/."""

    def test_command(self) -> None:
        """They start our plugins, with options that the role has."""
        for role in ROLES:
            words = shlex.split(Unit(f"ostore-{role}")["ExecStart"])
            plugin = getattr(ostore_plugins, role).tapname
            at = words.index(plugin)
            self.assertTrue(words[0].endswith("/twistd"))
            self.assertLess({"--nodaemon", "--pidfile="}, set(words[:at]))
            options, values = words[at + 1 :: 2], words[at + 2 :: 2]
            known = {f"--{setting.key}" for setting in (*rows(role), CONFIG)}
            self.assertEqual(len(options), len(values))
            self.assertLessEqual(set(options), known)
            self.assertLessEqual({"--config", "--cluster-secret-file"}, set(options))

    def test_credentials(self) -> None:
        """What the command takes from the credentials is loaded, and nothing else."""
        for role in ROLES:
            unit = Unit(f"ostore-{role}")
            loaded = {each.split(":")[0] for each in unit.values["LoadCredential"]}
            used = re.findall(
                r"\$\{CREDENTIALS_DIRECTORY\}/([\w-]+)", unit["ExecStart"]
            )
            self.assertEqual(loaded, set(used))

    def test_stop(self) -> None:
        """They leave the time that requests under way have, and some for the rest."""
        for role in ROLES:
            stop = int(Unit(f"ostore-{role}")["TimeoutStopSec"])
            self.assertGreaterEqual(stop, GRACE + 10)

    def test_what_they_may_not_do(self) -> None:
        """Both run as nobody special, over a file system that is read-only."""
        for role in ROLES:
            unit = Unit(f"ostore-{role}")
            for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices"):
                self.assertEqual(unit[key], "yes")
            self.assertEqual(unit["ProtectSystem"], "strict")
            self.assertEqual(unit["CapabilityBoundingSet"], "")
            self.assertEqual(unit["LimitNOFILE"], "65536")
            self.assertEqual(unit["Restart"], "on-failure")
            user = unit.values.get("User", []) + unit.values.get("DynamicUser", [])
            self.assertIn(user, (["ostore"], ["yes"]))


class BrokerTests(SynchronousTestCase):
    """etc/rabbitmq/definitions.json."""

    def setUp(self) -> None:
        """Read it."""
        path = CHECKOUT / "etc/rabbitmq/definitions.json"
        self.definitions: dict[str, Any] = json.loads(path.read_text("utf-8"))

    def test_exchanges(self) -> None:
        """The two exchanges of the bus, as services declare them themselves."""
        exchanges = self.definitions["exchanges"]
        self.assertEqual({each["name"] for each in exchanges}, {API_TOPIC, DATA_TOPIC})
        self.assertEqual(set(TOPICS), {API_TOPIC, DATA_TOPIC})
        for each in exchanges:
            self.assertEqual((each["type"], each["durable"]), ("fanout", True))
            self.assertFalse(each["auto_delete"] or each["internal"])
            self.assertEqual(each["arguments"], {})

    def test_one_vhost(self) -> None:
        """Everything is in one vhost of its own."""
        (vhost,) = self.definitions["vhosts"]
        for each in self.definitions["permissions"] + self.definitions["exchanges"]:
            self.assertEqual(each["vhost"], vhost["name"])

    def test_no_user(self) -> None:
        """No password and no hash: importing it again changes neither."""
        self.assertNotIn("users", self.definitions)
        self.assertNotIn("password", json.dumps(self.definitions))

    def test_permissions(self) -> None:
        """What the bus does is allowed, and next to nothing else."""
        (given,) = self.definitions["permissions"]
        own = "amq.gen-Xq2"
        for what, names in (
            ("configure", (*TOPICS, own)),
            ("write", (*TOPICS, own, "amq.default")),
            ("read", (*TOPICS, own)),
        ):
            allowed = re.compile(given[what])
            for name in names:
                self.assertIsNotNone(allowed.search(name), (what, name))
            others = ("", "amq.topic", "other", f"{own[3:]}", "x-apiServers", REPLY_TO)
            for name in others:
                self.assertIsNone(allowed.search(name), (what, name))
        self.assertIsNone(re.search(given["configure"], "amq.default"))
