"""The envelope: one JSON object around each message, and the reading of what arrives.

A message that has `message_type` and `payload` is an envelope; any other JSON value is a *bare*
payload. Reading never raises anything but `Dropped`, whose reason the receiver counts.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from dataclasses import dataclass
from typing import Any, Optional

MESSAGE_BYTES_MAX = 1 << 20
"""The largest message: what does not fit belongs in a file or behind a URL."""

ID_BYTES_MAX = 1_024
"""The longest `message_id`, `source` and `correlation_id`: they are kept and sent back."""

HOPS_MAX_DEFAULT = 10
BROADCAST = "broadcast"
MESSAGE_TYPES = ("event", "request", "response", "command", "error")
PRIORITIES = ("low", "normal", "high", "critical")

SOURCE_PROPERTY = "alicia-source"
"""The MQTT 5 user property in which the embedded broker names the authenticated sender."""


class Dropped(Exception):
    """The message must not be taken; `reason` is the name that it is counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Message:
    """A message as a handler gets it."""

    topic: str
    """The topic without the prefix; one outside the prefix starts with `/`."""
    payload: Any
    """The message itself; for a bare one all of it."""
    type: str = "event"
    """`event`, `request`, `response`, `command` or `error`."""
    source: Optional[str] = None
    """Who sent it; None for a bare message whose broker does not say."""
    message_id: Optional[str] = None
    """A UUID; None for a bare message."""
    timestamp: Optional[float] = None
    """When it was sent, in Unix seconds; None for a bare message."""
    correlation_id: Optional[str] = None
    """Joins an answer to its request."""
    retained: bool = False
    """Whether the broker had kept it, so that it may be old."""


@dataclass(frozen=True)
class Received:
    """What was read: the fields of the envelope, or None, and the payload."""

    envelope: Optional[dict[str, Any]]
    payload: Any

    def field(self, name: str) -> Any:
        """A field of the envelope; None when it is absent or the message is bare."""
        return None if self.envelope is None else self.envelope.get(name)


@dataclass(frozen=True)
class Address:
    """The fields of an envelope that differ from message to message."""

    type: str = "event"
    destination: str = BROADCAST
    ttl: Optional[float] = None
    correlation_id: Optional[str] = None
    reply_to: Optional[str] = None


def write(source: str, payload: Any, address: Address = Address()) -> bytes:
    """The bytes of a message. Raises `ValueError` when it cannot be sent."""
    envelope: dict[str, Any] = {
        "message_id": str(uuid.uuid4()),
        "timestamp": time.time(),
        "source": source,
        "destination": address.destination,
        "message_type": address.type,
        "priority": "normal",
        "payload": payload,
        "routing": {"hops": 0, "max_hops": HOPS_MAX_DEFAULT},
    }
    for name in ("ttl", "correlation_id", "reply_to"):
        value = getattr(address, name)
        if value is not None:
            envelope[name] = value
    try:
        text = json.dumps(envelope, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the payload cannot be written as JSON: {error}") from error
    if len(text) > MESSAGE_BYTES_MAX:
        raise ValueError(f"the message has {len(text)} bytes, at most {MESSAGE_BYTES_MAX} can be sent")
    return text.encode()


def read(data: bytes, now: float) -> Received:
    """Reads the bytes of one message, or raises `Dropped`."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise Dropped("too-large")
    try:
        value = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Dropped("not-an-envelope") from error
    if not (isinstance(value, dict) and "message_type" in value and "payload" in value):
        return Received(None, value)
    if not _is_well_formed(value):
        raise Dropped("not-an-envelope")
    ttl = value.get("ttl")
    if ttl is not None and value["timestamp"] + ttl < now:
        raise Dropped("expired")
    routing = value.get("routing", {})
    if routing.get("hops", 0) > routing.get("max_hops", HOPS_MAX_DEFAULT):
        raise Dropped("too-many-hops")
    return Received(value, value["payload"])


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32


def _is_short(text: Optional[str]) -> bool:
    return text is None or len(text.encode(errors="surrogatepass")) <= ID_BYTES_MAX


def _is_well_formed(envelope: dict[str, Any]) -> bool:
    """Whether each field has its type. Unknown fields are left alone, so that fields can be added."""
    texts = ("message_id", "source")
    optional = ("correlation_id", "reply_to", "signature")
    routing = envelope.get("routing", {})
    ttl = envelope.get("ttl")
    return (
        all(isinstance(envelope.get(name), str) for name in texts)
        and all(isinstance(envelope.get(name, ""), (str, type(None))) for name in optional)
        and all(_is_short(envelope.get(name)) for name in (*texts, "correlation_id"))
        and isinstance(envelope.get("destination", BROADCAST), str)
        and envelope["message_type"] in MESSAGE_TYPES
        and envelope.get("priority", "normal") in PRIORITIES
        and _is_number(envelope.get("timestamp"))
        and (ttl is None or _is_number(ttl))
        and isinstance(routing, dict)
        and all(_is_count(routing.get(name, 0)) for name in ("hops", "max_hops"))
    )
