"""The command as a whole: help, settings, exit statuses, shells, pages, start."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.python.procutils import which
from twisted.trial.unittest import SkipTest

from ostore.cli.main import ostore
from ostore.cli.manual import pages
from ostore.cli.settings import VARIABLES, resolve
from ostore.service import config
from tests.cli.support import CommandTestCase, ServiceTestCase, shared
from tests.cli.test_docs import commands
from tests.support.child import CHECKOUT, environment

SECRET = "s" * 40
PROFILES = """
profile = "home"

[profiles.home]
endpoint = "http://home.example:81"
cluster-secret-file = "secret"

[profiles.work]
endpoint = "https://work.example"
token-file = "token"
"""


def child(
    *words: str, environ: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ostore.cli.main", *words],
        env=environment(environ or {}),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


class HelpTests(CommandTestCase):
    """--help, --version, usage."""

    def test_help(self) -> None:
        """Every command has a page of help with examples and exits with 0."""
        for words, _ in commands():
            result = self.done(*words.split(), "--help")
            self.assertIn("Usage: ostore", result.out)
            self.assertIn("Examples:", result.out)
        self.assertIn("Exit status", self.done("--help").out)
        self.assertTrue(self.done("--version").out.startswith("ostore, version "))

    def test_misuse(self) -> None:
        """What cannot be used is status 2 and a line of why."""
        for words in (
            ("nix",),
            ("get",),
            ("get", "--nix", "a"),
            ("put", "--threshold=many", "a", "b"),
            ("--endpoint=ftp://x", "ls"),
            ("--endpoint=http://x/path", "ls"),
            ("--endpoint=http://x:port", "ls"),
            ("cat", "x" * 1025),
            ("cat", ""),
            ("--profile=nix", "ls"),
        ):
            result = self.ostore(*words)
            self.assertEqual(result.status, 2, words)
            self.assertEqual(result.out, "")
            self.assertNotIn("Traceback", result.err)

    def test_no_service(self) -> None:
        """Where nobody ever answered, status 1 at once; --retries has it tried again."""
        result = self.ostore("ls")
        self.assertEqual((result.status, self.waits), (1, []))
        self.assertIn("is the service running", result.err)
        result = self.ostore("ls", "--retries=5")
        self.assertEqual(result.status, 1)
        self.assertIn("is the service running", result.err)
        self.assertEqual(len(self.waits), 5)
        self.assertEqual(self.waits, sorted(self.waits))
        del self.waits[:]
        for words in (("--retries=0", "ls"), ("ls", "--retries=0")):
            self.assertEqual(self.ostore(*words).status, 1)
        self.assertEqual(self.waits, [])

    def test_defect(self) -> None:
        """A defect of the command is a line, and where it is only when asked for."""
        self.patch(ostore, "callback", None)
        self.patch(type(ostore), "invoke", lambda *_: 1 // 0)
        result = self.ostore("ls")
        self.assertEqual(result.status, 1)
        self.assertIn("a defect of this command: ZeroDivisionError", result.err)
        environ = {"OSTORE_TRACEBACK": "1"}
        with self.assertRaises(ZeroDivisionError):
            self.ostore("ls", environ=environ)


class SettingTests(CommandTestCase):
    """Option, environment, profile, default."""

    def profiles(self, text: str) -> None:
        """Write the file of profiles."""
        self.file("home/config/ostore/config.toml", text.encode())

    def test_order(self) -> None:
        """An option goes before the environment, that before the profile."""
        bare = {key: v for key, v in self.environ.items() if key != "OSTORE_ENDPOINT"}
        self.assertEqual(str(resolve({}, bare).endpoint), "http://127.0.0.1:8080")
        self.profiles(PROFILES)
        self.assertEqual(str(resolve({}, bare).endpoint), "http://home.example:81")
        named = resolve({"profile": "work"}, bare)
        self.assertEqual(str(named.endpoint), "https://work.example")
        chosen = resolve({}, {**bare, "OSTORE_PROFILE": "work"})
        self.assertEqual(chosen, named)
        given = {**bare, "OSTORE_ENDPOINT": "[::1]:9"}
        self.assertEqual(str(resolve({}, given).endpoint), "http://[::1]:9")
        self.assertEqual(
            str(resolve({"endpoint": "https://o"}, given).endpoint), "https://o"
        )

    def test_bad_files(self) -> None:
        """A file of profiles that cannot be used is told with what is allowed."""
        for text, said in (
            ("nix = 1", "unknown key 'nix'"),
            ("profile = 'x'", "no profile 'x'"),
            ("profile = 'x'\n[profiles.y]", "there is: y"),
            ("profile = 'x'\n[profiles.x]\nport = 1", "allowed are texts for"),
            ("profile = 'x'\n[profiles.x]\nendpoint = 1", "allowed are texts for"),
            ("profile = 'x'\nprofiles = 3", "no profile"),
            ("not toml", "cannot be used"),
        ):
            self.profiles(text)
            result = self.ostore("ls")
            self.assertEqual(result.status, 2, text)
            self.assertIn(said, result.err)

    def test_secrets(self) -> None:
        """Secrets come from a file or a variable, and are checked before use."""
        path = self.file("secret", f"\n  {SECRET}\nolder{SECRET}\n".encode())
        found = resolve({"cluster-secret-file": str(path)}, self.environ)
        self.assertEqual(found.secret(), SECRET.encode())
        varied = {**self.environ, "OSTORE_CLUSTER_SECRET": "v" * 32}
        self.assertEqual(resolve({}, varied).secret(), b"v" * 32)
        both = resolve({"cluster-secret-file": str(path)}, varied)
        self.assertEqual(both.secret(), SECRET.encode())
        self.assertNotIn(SECRET, repr(found))
        self.assertNotIn("vvv", repr(resolve({}, varied)))
        token = self.file("token", b"abc\n")
        found = resolve({"token-file": str(token)}, self.environ)
        self.assertEqual(found.authorization(), "Bearer abc")
        self.assertIsNone(resolve({}, self.environ).authorization())
        self.assertEqual(
            resolve({}, {**self.environ, "OSTORE_TOKEN": "x"}).authorization(),
            "Bearer x",
        )
        for text in (b"a b", b"", b"a\nb", b"\xff"):
            self.file("token", text)
            result = self.ostore("ls", "--token-file", "token", "--retries=0")
            self.assertEqual(result.status, 2, text)

    def test_services_take_no_notice(self) -> None:
        """A service starts in a shell that has the command's variables set."""
        environ = dict.fromkeys(VARIABLES - {"OSTORE_CLUSTER_SECRET_FILE"}, "x")
        self.assertEqual(config.resolve("standalone", {}, environ).nodes, 6)

    def test_no_option_takes_a_secret(self) -> None:
        """No option of any command takes a secret itself."""
        for words, command in commands():
            for param in command.params:
                if "secret" in (param.name or "") or "token" in (param.name or ""):
                    self.assertIn("file", param.name or "", words)


class ShellTests(ServiceTestCase):
    """Completion."""

    def test_scripts(self) -> None:
        """A script for each shell."""
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("_OSTORE_COMPLETE", self.done("completion", shell).out)
        self.assertEqual(self.ostore("completion", "csh").status, 2)

    def completed(self, *words: str, shell: str = "zsh") -> str:
        """What a shell is told about the last of these words."""
        environ = {
            **self.environ,
            "_OSTORE_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": " ".join(("ostore", *words)),
            "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
        }
        result = child(environ=environ)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return result.stdout.decode()

    def test_words(self) -> None:
        """Verbs, options, values and names of objects, for each shell."""
        for name in ("trip/a", "trip/b", "other"):
            self.done("put", "-", name, stdin=b"1")
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("sync", self.completed("sy", shell=shell))
            self.assertIn("--larger", self.completed("find", "--la", shell=shell))
            self.assertIn("zstd", self.completed("put", "--compress", "z", shell=shell))
            names = self.completed("cat", "t", shell=shell)
            self.assertIn("trip/", names)
            self.assertNotIn("other", names)
        self.assertIn("trip/b", self.completed("cat", "trip/"))
        self.assertNotIn(
            "trip", self.completed("cat", "--endpoint", "127.0.0.1:1", "t")
        )

    def test_bash(self) -> None:
        """Bash completes with its script."""
        if not which("bash"):
            raise SkipTest("needs bash")
        self.done("put", "-", "trip/a", stdin=b"1")
        tool = self.file("bin/ostore", b"")
        tool.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m ostore.cli.main "$@"\n', "utf-8"
        )
        tool.chmod(0o755)
        (self.folder / "script").write_text(
            self.done("completion", "bash").out, "utf-8"
        )
        ask = (
            "source ./script; COMP_WORDS=(ostore cat tr); COMP_CWORD=2; "
            '_ostore_completion ostore; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        environ = environment(self.environ)
        environ["PATH"] = f"{tool.parent}{os.pathsep}{environ['PATH']}"
        found = subprocess.run(
            ["bash", "--norc", "-c", ask],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            check=True,
            timeout=60,
        )
        self.assertEqual((found.stdout, found.stderr), (b"trip/\n", b""))


class ManualTests(CommandTestCase):
    """The manual pages."""

    def test_shipped(self) -> None:
        """docs/man holds what the texts of today give (`ostore manual --to docs/man`)."""
        found = {p.name: p.read_text("utf-8") for p in CHECKOUT.glob("docs/man/*.1")}
        self.assertEqual(found, pages(ostore))

    def test_every_verb(self) -> None:
        """Each command has a page with its options, examples and exit statuses."""
        found = pages(ostore)
        for words, command in commands():
            text = found["-".join(["ostore", *words.split()]) + ".1"]
            plain = text.replace("\\-", "-")
            for param in command.params:
                if param.param_type_name == "option":
                    self.assertIn(param.opts[0], plain)
            self.assertIn(".SH EXIT STATUS", text)
            self.assertIn(".SH EXAMPLES", text)
        self.assertEqual(
            self.done("manual", "pack", "ls").out, found["ostore-pack-ls.1"]
        )
        self.assertEqual(self.ostore("manual", "nix").status, 3)
        self.done("manual", "--to", "man")
        self.assertEqual(len(list((self.folder / "man").iterdir())), len(found))

    def test_groff(self) -> None:
        """Groff has nothing to complain of."""
        if not which("groff"):
            raise SkipTest("needs groff")
        for name, text in pages(ostore).items():
            result = subprocess.run(
                ["groff", "-man", "-Tutf8", "-ww"],
                input=text.encode(),
                capture_output=True,
                check=True,
                timeout=60,
            )
            self.assertEqual(result.stderr, b"", name)


class StartTests(ServiceTestCase):
    """A process of its own."""

    def test_modules(self) -> None:
        """Nothing heavy is imported to list, put and get small objects."""
        heavy = {
            "twisted",
            "zope",
            "rich",
            "treq",
            "asyncio",
            "cryptography",
            "OpenSSL",
            "prometheus_client",
            "zfec",
            "httpx",
            "requests",
        }
        ask = (
            "import sys\n"
            "from ostore.cli.main import main\n"
            "try: main()\n"
            "finally: print(*sys.modules, file=sys.stderr)\n"
        )
        self.file("a", b"1")
        for words in (["ls"], ["put", "a"], ["get", "a", "b"], ["--help"]):
            result = subprocess.run(
                [sys.executable, "-c", ask, *words],
                cwd=self.folder,
                env=environment(self.environ),
                capture_output=True,
                timeout=60,
                check=False,
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            found = {name.partition(".")[0] for name in result.stderr.decode().split()}
            self.assertIn("click", found)
            self.assertEqual(found & heavy, set(), words)

    def test_closed_pipe(self) -> None:
        """Whoever has read enough is no failure that is told."""
        for n in range(3):
            self.done("put", "-", f"{n}", stdin=b"x" * 300_000)
        script = f"{sys.executable} -m ostore.cli.main cat 0 1 2 | head -c 10"
        result = subprocess.run(
            ["sh", "-c", script],
            env=environment(self.environ),
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((result.stdout, result.stderr), (b"x" * 10, b""))

    def test_status(self) -> None:
        """The process ends with the status."""
        environ = {"OSTORE_ENDPOINT": f"http://127.0.0.1:{shared()}"}
        self.assertEqual(child("ls", environ=environ).returncode, 0)
        self.assertEqual(child("cat", "nix", environ=environ).returncode, 3)
        self.assertEqual(child("nix").returncode, 2)
        result = child("put", "-", "x", environ=environ, stdin=b"hello")
        self.assertEqual(result.returncode, 0)
        self.assertEqual(result.stderr, b"")
