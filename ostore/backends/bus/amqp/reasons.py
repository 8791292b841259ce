"""Why a broker cannot be used, in one sentence for the one who runs it."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from service_identity import VerificationError

from ostore.streaming.clock import TimedOut

MAX_TEXT: Final = 200
ACCESS_REFUSED: Final = 403
NOT_ALLOWED: Final = 530


class BrokerLost(Exception):
    """The connection is no more, or never was; the text says why."""


class BrokerRefused(BrokerLost):
    """It will not work until somebody changes a setting, here or there."""


def printable(text: str | bytes) -> str:
    """What a broker says, fit for a log."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    kept = "".join(c if c.isprintable() else "?" for c in text)
    return kept[:MAX_TEXT]


def closed_by_broker(where: str, message: Any) -> BrokerLost:
    """What a connection.close or channel.close means."""
    said = f"{message.reply_code} {printable(message.reply_text)}"
    if message.reply_code == ACCESS_REFUSED:
        return BrokerRefused(f"{where} refuses the user or its rights: {said}")
    # A limit on connections bears the same code, and passes.
    if message.reply_code == NOT_ALLOWED and " limit" not in said:
        return BrokerRefused(f"{where} refuses the vhost: {said}")
    return BrokerLost(f"{where} closed the connection: {said}")


def lost(
    where: str, error: BaseException | None, *, reached: bool = False
) -> BrokerLost:
    """What the end of a connection, or of the attempt at one, means."""
    if isinstance(error, BrokerLost):
        return error
    if isinstance(error, VerificationError):
        return BrokerRefused(f"the certificate of {where} is for another host")
    if isinstance(error, SSL.Error):
        said = "; ".join(str(each[-1]) for each in _reasons(error)) or "unknown error"
        if "certificate verify failed" in said:
            return BrokerRefused(
                f"the certificate of {where} is not vouched for by a trusted CA"
            )
        return BrokerLost(f"no TLS with {where}: {printable(said)}")
    if isinstance(error, TimedOut):
        return BrokerLost(f"{where} did not answer in time")
    said = printable(str(error)) or type(error).__name__
    if reached:
        return BrokerLost(f"the connection to {where} was lost: {said}")
    return BrokerLost(f"cannot reach {where}: {said}")


def _reasons(error: SSL.Error) -> list[Any]:
    return list(error.args[0]) if error.args and error.args[0] else []
