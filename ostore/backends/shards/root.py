"""The storage root: whose it is, that it is ours alone, and that it is still there."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from contextlib import suppress

import attrs

from ostore.backends.shards.files import FileFacts, Files, node_error, on_disk
from ostore.backends.shards.identity import CLUSTER, Identity, IdentityFile
from ostore.backends.shards.paths import Paths
from ostore.model.errors import Malformed, NodeFull, NodeUnreachable, Refused
from ostore.model.nodes import Boot


class RootGone(NodeUnreachable):
    """The storage root is not there, or is another folder than the one opened."""


class Root:
    """One storage root: its identity, its lock, and the watch over both.

    Owned by a node; blocks, for worker threads. `open` at the start, `mend` now and
    then, `check` before a write is acknowledged, `close` at the end. The root's
    device and inode are remembered in memory only.
    """

    def __init__(
        self, path: str, files: Files, entropy: Callable[[int], bytes]
    ) -> None:
        self.paths = Paths(path)
        self.readonly = ""
        """Why nothing may be written; empty when all is well."""
        self.draining = False
        """The node is to hold nothing; remembered on the disk."""
        self.full = False
        """No room for new shards; the node's owner sets it."""
        self.identity = Identity("", 0)
        self.boot = Boot(0, "")
        self._files = files
        self._entropy = entropy
        self._identities = IdentityFile(files, self.paths)
        self._lock: int | None = None
        self._stamp = (0, 0)

    def open(self) -> None:
        """Take the root, giving it an id when it is missing or empty.

        Raises the starting errors, each one line: Malformed (something else lies
        there), Refused (another process has it), NodeUnreachable, NodeFull.
        """
        try:
            self._make_folders()
            if self._identities.read() is None:
                self._refuse_strangers()
            if not self._take_lock():
                raise Refused(
                    f"the storage root {self.paths.root} is in use by another process"
                )
            found = self._identities.read() or Identity(self._entropy(16).hex(), 0)
            self._settle(attrs.evolve(found, boot=found.boot + 1))
            self.draining = self._stat(self.paths.draining) is not None
        except OSError as error:
            self.close()
            raise NodeUnreachable(
                f"the storage root {self.paths.root} cannot be used: {error.strerror}"
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have it. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            self._files.close(lock)

    def admit(self) -> None:
        """Raise NodeUnreachable or NodeFull if new shards are not welcome."""
        if self.readonly:
            raise NodeUnreachable(self.readonly)
        if self.full:
            raise NodeFull("the node has no room for new shards")

    def check(self) -> None:
        """Raise RootGone unless the root is still the folder that was opened.

        NodeUnreachable when it is known not to be usable.
        """
        if self.readonly:
            raise NodeUnreachable(self.readonly)
        with on_disk():
            found = self._stat(self.paths.root)
        if found is None or _stamp(found) != self._stamp:
            raise RootGone("the storage root is no longer there")

    def mend(self) -> bool:
        """Look after the root; True when its shards must be counted anew.

        A root that was deleted is made anew with the same id and a new boot, one that
        was exchanged for another folder with our id is taken over, one that was away
        and is back may have been taken for empty meanwhile. Otherwise
        `readonly` says what is wrong, and is cleared when it is right again.
        """
        try:
            return self._mend()
        except OSError as error:
            self.readonly = str(node_error(error))
        except Malformed as error:
            self.readonly = str(error)
        return False

    def adopt(self, cluster: str, epoch: int) -> None:
        """Write down the cluster and its epoch. Raises Refused, Malformed.

        The caller sees to it that a node without a cluster holds no shards.
        """
        known = self.identity
        if not cluster or not CLUSTER.fullmatch(cluster):
            raise Malformed("a cluster id is 1 to 64 letters, digits or dashes")
        if known.cluster and known.cluster != cluster:
            raise Refused("the node belongs to another cluster")
        if epoch < known.epoch:
            raise Refused(f"the node has seen epoch {known.epoch}")
        changed = attrs.evolve(known, cluster=cluster, epoch=epoch)
        if changed == known:
            return
        self.check()
        with on_disk():
            self._identities.write(changed)
        self.identity = changed

    def drain(self, *, on: bool) -> None:
        """Remember, durably, whether the node is to give its shards away."""
        self.check()
        with on_disk():
            self._mark(on=on)
        self.draining = on

    def _mark(self, *, on: bool) -> None:
        path = self.paths.draining
        if on:
            self._files.close(self._files.open(path, os.O_WRONLY | os.O_CREAT))
        else:
            with suppress(FileNotFoundError):
                self._files.remove(path)
        self._files.fsync_folder(self.paths.root)

    def _mend(self) -> bool:
        found = self._stat(self.paths.root)
        if found is not None and _stamp(found) == self._stamp:
            kept = (self.paths.identity, self.paths.lock)
            if all(self._stat(path) is not None for path in kept):
                was, self.readonly = self.readonly, ""
                return bool(was)
            return self._make_anew()
        if found is not None:
            identity = self._identities.read()
            if identity is not None:
                return self._take_over(identity)
        device = self._above().device
        if device != self._stamp[0] or (found and found.device != device):
            self.readonly = "the storage root's device is gone"
            return False
        if found is not None and self._strangers():
            self.readonly = "the storage root was exchanged for another folder"
            return False
        return self._make_anew()

    def _make_anew(self) -> bool:
        self._make_folders()
        if not self._take_lock():
            self.readonly = "another process has the storage root"
            return False
        self._settle(attrs.evolve(self.identity, boot=self.identity.boot + 1))
        if self.draining:
            self._mark(on=True)
        return True

    def _take_over(self, found: Identity) -> bool:
        ours = self.identity
        if found.node != ours.node:
            self.readonly = "the storage root now bears another node's id"
        elif found.cluster != ours.cluster and ours.cluster and found.cluster:
            self.readonly = "the storage root now belongs to another cluster"
        elif not self._take_lock():
            self.readonly = "another process has the storage root"
        else:
            boot = max(found.boot, ours.boot) + 1
            epoch = max(found.epoch, ours.epoch)
            cluster = ours.cluster or found.cluster
            self._settle(Identity(ours.node, boot, cluster, epoch))
            self.draining = self._stat(self.paths.draining) is not None
            return True
        return False

    def _settle(self, identity: Identity) -> None:
        """Write the identity and remember the folder it was written to."""
        self._identities.write(identity)
        self.identity = identity
        self.boot = Boot(identity.boot, self._entropy(8).hex())
        self._stamp = _stamp(self._files.stat(self.paths.root))
        self.readonly = ""

    def _take_lock(self) -> bool:
        if self._lock is not None:
            standing = self._stat(self.paths.lock)
            held = self._files.fstat(self._lock)
            if standing is not None and _stamp(standing) == _stamp(held):
                return True
        fd = self._files.open(self.paths.lock, os.O_RDWR | os.O_CREAT)
        if not self._files.lock(fd):
            self._files.close(fd)
            return False
        self.close()
        self._lock = fd
        return True

    def _make_folders(self) -> None:
        missing = []
        folder = self.paths.root
        while self._stat(folder) is None:
            missing.append(folder)
            folder = posixpath.dirname(folder)
        for path in reversed(missing):
            with suppress(FileExistsError):
                self._files.mkdir(path)
            self._files.fsync_folder(posixpath.dirname(path))

    def _strangers(self) -> bool:
        ours = (self.paths.lock, *self._identities.spares)
        allowed = {posixpath.basename(path) for path in ours} | {"lost+found"}
        return any(name not in allowed for name, _ in self._files.scan(self.paths.root))

    def _refuse_strangers(self) -> None:
        if self._strangers():
            raise Malformed(
                f"the storage root {self.paths.root} holds something that is not "
                "ostore's: it must be missing, empty, or a storage root"
            )

    def _stat(self, path: str) -> FileFacts | None:
        try:
            return self._files.stat(path)
        except FileNotFoundError:
            return None

    def _above(self) -> FileFacts:
        """Facts of the nearest folder above the root that is there."""
        folder = self.paths.parent
        while (found := self._stat(folder)) is None:
            folder = posixpath.dirname(folder)
        return found


def _stamp(facts: FileFacts) -> tuple[int, int]:
    return facts.device, facts.inode
