"""One HTTP exchange with a search server, and what its failure means."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import attrs
import treq.client
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http_headers import Headers

from ostore.backends.metadata.elastic_hosts import Host
from ostore.model.errors import Malformed
from ostore.streaming.download import Download, DownloadBroken, DownloadTooLong

LONGEST = 64 * 1024 * 1024
"""The most bytes of an answer."""

_CONNECT = 3.0
_IDLE = 25
_PER_HOST = 16


class Failed(Exception):
    """An exchange came to nothing.

    `sent`: the request may have been carried out. `blame`: the host is not well.
    `busy`: it asks for patience. `final`: another try gives the same.
    """

    def __init__(
        self,
        seen: str,
        *,
        sent: bool,
        blame: bool = False,
        busy: bool = False,
        final: bool = False,
    ) -> None:
        super().__init__(seen)
        self.seen = seen
        self.sent = sent
        self.blame = blame
        self.busy = busy
        self.final = final


@attrs.frozen
class Answer:
    """A status and a JSON object; None for a body that is anything else."""

    status: int
    body: dict[str, Any] | None


class _Quiet(_HTTP11ClientFactory):
    """Makes connections without a line in the log for each."""

    noisy = False


class Exchange:
    """Owns the connections: kept alive, at most 16 idle ones a host, until `close`.

    `authorities` are PEM certificates that vouch for https servers, in the place of
    the system's. Raises Malformed when there are none in it.
    """

    def __init__(self, reactor: Any, authorities: bytes | None = None) -> None:
        trust = None if authorities is None else _trust(authorities)
        policy = BrowserLikePolicyForHTTPS(trustRoot=trust)  # type: ignore[no-untyped-call]  # as Twisted leaves it
        self._pool = HTTPConnectionPool(reactor, persistent=True)  # type: ignore[no-untyped-call]  # as Twisted leaves it
        self._pool.maxPersistentPerHost = _PER_HOST
        self._pool.cachedConnectionTimeout = _IDLE
        self._pool.retryAutomatically = False
        self._pool._factory = _Quiet  # noqa: SLF001 - its only way to say less
        agent = Agent(reactor, policy, connectTimeout=_CONNECT, pool=self._pool)  # type: ignore[no-untyped-call]  # as Twisted leaves it
        self._treq = treq.client.HTTPClient(agent)

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        await self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]  # as Twisted leaves it

    async def run(
        self, host: Host, method: str, target: str, kind: str, content: bytes | None
    ) -> Answer:
        """Send and receive all of it. Raises Failed; cancel it to give up."""
        headers = Headers({b"accept": [b"application/json"]})
        if content is not None:
            headers.addRawHeader(b"content-type", kind.encode())
        if host.authorization is not None:
            headers.addRawHeader(b"authorization", host.authorization.encode())
        try:
            response = await _cancellable(
                self._treq.request(
                    method,
                    host.url + target,
                    headers=headers,
                    data=content,
                    allow_redirects=False,
                    unbuffered=True,
                )
            )
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - Agent's errors have no one parent
            _explain(error)
        body = Download(response, LONGEST)
        try:
            return Answer(response.code, _object(await body.read_all()))
        except (DownloadBroken, DownloadTooLong) as error:
            raise Failed(str(error), sent=True, blame=True) from None
        finally:
            body.close()


def _cancellable(asked: Deferred[Any]) -> Deferred[Any]:
    """The same, but cancelled it fails with CancelledError whatever Agent makes of it."""

    def end(outcome: object) -> None:
        if not given.called:
            given.callback(outcome)

    def cancel(_: Deferred[Any]) -> None:
        given.errback(CancelledError())
        asked.cancel()

    given: Deferred[Any] = Deferred(cancel)
    _ = asked.addBoth(end)
    return given


def _explain(error: Exception) -> NoReturn:
    _explain_tls(error)
    if isinstance(error, ConnectError | DNSLookupError):
        raise Failed(_short(error), sent=False, blame=True) from None
    garbage = isinstance(error, ResponseFailed) and not isinstance(
        error, ResponseNeverReceived
    )
    if hasattr(error, "reasons") and not garbage:
        # So ends a kept connection that the server closed meanwhile, too.
        raise Failed("the connection was lost", sent=True) from None
    raise Failed(_short(error), sent=True, blame=True) from None


def _explain_tls(error: Exception) -> None:
    """Raise Failed when it is a handshake's failure: nothing was sent then."""
    for reason in getattr(error, "reasons", ()):
        cause = reason.value if isinstance(reason, Failure) else reason
        if isinstance(cause, VerificationError):
            seen = "its certificate is for another host"
            raise Failed(seen, sent=False, blame=True, final=True)
        if isinstance(cause, TLSError):
            told = ", ".join(str(part[-1]) for part in (cause.args or ((),))[0] if part)
            bad = "certificate" in told
            seen = f"its certificate does not check ({told})" if bad else f"TLS: {told}"
            raise Failed(seen, sent=False, blame=True, final=bad)


def _short(error: Exception) -> str:
    name = type(error).__name__
    return {
        "ConnectionRefusedError": "connection refused",
        "DNSLookupError": "its name is not known",
        "TimeoutError": "no connection in time",
    }.get(name, name)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _trust(pem: bytes) -> Any:
    try:
        parsed = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise Malformed("the CA file must hold PEM certificates") from None
    found = [Certificate.loadPEM(one.public_bytes(Encoding.PEM)) for one in parsed]
    return trustRootFromCertificates(found)  # type: ignore[no-untyped-call]  # as Twisted leaves it
