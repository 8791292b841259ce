"""twistd and what ostore adds to it, in real child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.application.service import IServiceMaker, Service
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ostore.service.failing import StartError
from ostore.service.options import StandaloneOptions
from twisted.plugins import ostore_plugins

CHECKOUT = Path(__file__).parents[2]
HEAVY = ("zfec", "cryptography", "prometheus_client", "twisted.web")
APPLICATION = """
from twisted.application.service import Application, Service
from twisted.internet import reactor
from ostore.service.failing import fail_start

class Failing(Service):
    def startService(self):
        if {early}:
            fail_start(reactor, "nothing works")
        else:
            reactor.callLater(0, fail_start, reactor, "nothing works")
            reactor.callLater(0, fail_start, reactor, "nothing at all")
    def stopService(self):
        print("stopped", flush=True)

application = Application("failing")
Failing().setServiceParent(application)
"""


class TwistdCase(SynchronousTestCase):
    """Runs twistd in a folder of its own."""

    def setUp(self) -> None:
        """An empty folder."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def run_python(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A finished child of this interpreter that finds the checkout."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OSTORE_")}
        environ["PYTHONPATH"] = str(CHECKOUT)
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def twistd(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A finished `twistd -n`."""
        run = "from twisted.scripts.twistd import run; run()"
        return self.run_python("-c", run, "-n", "--pidfile=", *words)


class PluginTests(TwistdCase):
    """The plugin is found, is what twistd expects, and costs little."""

    def test_interfaces(self) -> None:
        """It is a plugin and makes services."""
        plugin = ostore_plugins.standalone
        self.assertTrue(verifyObject(IPlugin, plugin))
        self.assertTrue(verifyObject(IServiceMaker, plugin))
        self.assertIsInstance(plugin.options(), StandaloneOptions)

    def test_listed(self) -> None:
        """`twistd --help` names it."""
        done = self.twistd("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("ostore-standalone", done.stdout)

    def test_light(self) -> None:
        """Loading the plugin loads nothing heavy."""
        done = self.run_python(
            "-c",
            "import sys, twisted.plugins.ostore_plugins;"
            f"print([m for m in sys.modules if m.startswith({HEAVY!r})"
            " or m.startswith('ostore.')])",
        )
        self.assertEqual(done.stdout, "[]\n", done.stderr)

    def test_refused_setting(self) -> None:
        """A bad setting ends in one line on standard error, and status 1."""
        done = self.twistd("ostore-standalone", "--nodes", "x")
        self.assertEqual(
            (done.returncode, done.stdout, done.stderr),
            (
                1,
                "",
                "ostore-standalone: nodes = 'x' (option --nodes):"
                " allowed is a whole number from 1 to 256\n",
            ),
        )

    def test_version(self) -> None:
        """--version is ours."""
        done = self.twistd("ostore-standalone", "--version")
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout.startswith("ostore "))


class MakeServiceTests(SynchronousTestCase):
    """makeService loads the service's module, and turns StartError into an exit."""

    def make(self, make_service: Any) -> Any:
        """What the plugin makes of that function."""
        module = ModuleType("ostore.service.standalone")
        module.makeService = make_service  # type: ignore[attr-defined] # made up here
        real = sys.modules.get(module.__name__)
        sys.modules[module.__name__] = module
        if real is None:
            self.addCleanup(sys.modules.pop, module.__name__)
        else:
            self.addCleanup(sys.modules.__setitem__, module.__name__, real)
        return ostore_plugins.standalone.makeService(StandaloneOptions())

    def test_service(self) -> None:
        """The service comes through."""
        service = Service()
        self.assertIs(self.make(lambda options: service), service)

    def test_start_error(self) -> None:
        """A StartError ends the process with its line."""

        def refuse(options: object) -> None:
            raise StartError("the root is held by another process")

        end = self.assertRaises(SystemExit, self.make, refuse)
        self.assertEqual(
            end.code, "ostore-standalone: the root is held by another process"
        )


class FailStartTests(TwistdCase):
    """What goes wrong after twistd took over."""

    def check(self, early: bool, *lines: str) -> None:
        """The service stops, the lines are printed, the status is 1."""
        (self.folder / "failing.tac").write_text(APPLICATION.format(early=early))
        done = self.twistd("-y", "failing.tac", "--logfile=twistd.log")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.splitlines(), list(lines))
        log = (self.folder / "twistd.log").read_text()
        self.assertIn("stopped", log + done.stdout)
        self.assertNotIn("Traceback", log + done.stderr)

    def test_before_the_reactor(self) -> None:
        """In startService: it stops as soon as the reactor runs."""
        self.check(True, "nothing works")

    def test_while_the_reactor_runs(self) -> None:
        """Later, and more than once: each line, one orderly stop."""
        self.check(False, "nothing works", "nothing at all")
