"""The signature of one message: a flattened JSON Web Signature (RFC 7515) over its exact bytes, with the topic, the
time and a sequence number in its protected header. Pure: the time is an argument.

It travels beside the message, in the MQTT 5 user property `alicia-signature` as `{"protected","signature"}`, or around
it as `{"payload","protected","signature"}`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional

from . import ed25519

SIGNATURE_PROPERTY = "alicia-signature"
ALGORITHM = "EdDSA"
VERSION = 1
COMMAND = "alicia-command"
"""The `typ` of a message that wants something done."""

VALIDITY_MS = 60_000
"""How far the clocks of signer and receiver may be apart, delivery included."""

WINDOW = 1_024
"""Sequence numbers that may arrive out of order behind the newest."""

TEXT_BYTES_MAX = 4_096
SIGNERS_SOFT_MAX = 4_096

MEMBERS = {
    "alg": str,
    "v": int,
    "kid": str,
    "iss": str,
    "topic": str,
    "typ": str,
    "iat": int,
    "seq": int,
    "nonce": str,
}


class BadSignature(Exception):
    """The signature is not accepted; `fault` is a stable name."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True)
class KnownKey:
    """A key of the directory."""

    public: bytes
    source: str
    instance: str
    epoch: int


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The reverse of `encode`, and of nothing else. Raises `ValueError`."""
    if not text.isascii() or "=" in text:
        raise ValueError("not base64url without padding")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if encode(data) != text:
        raise ValueError("not the one form of these bytes")
    return data


def thumbprint(public: bytes) -> str:
    """The id of a key (RFC 7638)."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{encode(public)}"}}'
    return encode(hashlib.sha256(members.encode()).digest())


def strict_json(data: bytes) -> dict[str, Any]:
    """An object in which no member stands twice. Raises `ValueError`."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member stands twice")
        return found

    try:
        value = json.loads(data.decode(), object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


class Signer:
    """Signs the messages of one run. There is one for each key, or sequence numbers would repeat."""

    def __init__(self, seed: bytes, source: str) -> None:
        self._seed = seed
        self.source = source
        self.kid = thumbprint(ed25519.public_key(seed))
        self._sequence = 0
        self._lock = threading.Lock()

    def sign(self, topic: str, payload: bytes, now_ms: int) -> str:
        """The detached signature of a command."""
        with self._lock:
            self._sequence += 1
            sequence = self._sequence
        header = {
            "alg": ALGORITHM,
            "v": VERSION,
            "kid": self.kid,
            "iss": self.source,
            "topic": topic,
            "typ": COMMAND,
            "iat": now_ms,
            "exp": now_ms + VALIDITY_MS,
            "seq": sequence,
            "nonce": encode(os.urandom(12)),
        }
        protected = encode(json.dumps(header, separators=(",", ":")).encode())
        signature = ed25519.sign(self._seed, signing_input(protected, payload))
        return json.dumps({"protected": protected, "signature": encode(signature)}, separators=(",", ":"))

    def prove(self, text: bytes) -> str:
        """The plain signature of a text, in base64url."""
        return encode(ed25519.sign(self._seed, text))


def signing_input(protected: str, payload: bytes) -> bytes:
    """What is signed (RFC 7515 section 5.1)."""
    return f"{protected}.{encode(payload)}".encode()


def detach(data: bytes) -> Optional[tuple[bytes, str]]:
    """The message and its detached signature out of an attached one; None when the bytes are no such object."""
    if not data.lstrip().startswith(b"{") or b'"protected"' not in data:
        return None
    try:
        value = strict_json(data)
        if set(value) != {"payload", "protected", "signature"}:
            return None
        payload = decode(value["payload"])
    except (ValueError, AttributeError, TypeError):
        return None
    return payload, json.dumps({"protected": value["protected"], "signature": value["signature"]})


class Window:
    """Which sequence numbers of one signer were seen: the newest 1,024."""

    def __init__(self, heard_ms: int) -> None:
        self.heard_ms = heard_ms
        self._newest = 0
        self._seen = 0
        """A bit for each number, the newest in the lowest."""

    def take(self, number: int) -> bool:
        """Takes a number once; False when it was taken or is too far behind."""
        if number > self._newest:
            shift = number - self._newest
            self._seen = (self._seen << shift) & ((1 << WINDOW) - 1) if shift < WINDOW else 0
            self._newest = number
        behind = self._newest - number
        if number < 1 or behind >= WINDOW or self._seen >> behind & 1:
            return False
        self._seen |= 1 << behind
        return True


class Verifier:
    """Checks signatures, and remembers them so that each is good once."""

    def __init__(self, started_ms: int) -> None:
        self._started_ms = started_ms
        self._windows: dict[str, Window] = {}
        self._lock = threading.Lock()

    def verify(
        self, topic: str, payload: bytes, signature: str, known: Callable[[str], Optional[KnownKey]], now_ms: int
    ) -> KnownKey:
        """The key of a good signature, which is used up; raises `BadSignature`."""
        header, protected, raw = _read(signature)
        key = known(header["kid"])
        if key is None:
            raise BadSignature("unknown-key")
        if key.source != header["iss"]:
            raise BadSignature("other-source")
        if header["topic"] != topic:
            raise BadSignature("other-topic")
        self._check_time(header, now_ms)
        if thumbprint(key.public) != header["kid"] or not ed25519.verify(
            key.public, signing_input(protected, payload), raw
        ):
            raise BadSignature("bad-signature")
        with self._lock:
            if len(self._windows) >= SIGNERS_SOFT_MAX:
                recent = {kid: one for kid, one in self._windows.items() if now_ms - one.heard_ms <= 2 * VALIDITY_MS}
                self._windows = recent
            window = self._windows.setdefault(header["kid"], Window(now_ms))
            window.heard_ms = max(window.heard_ms, now_ms)
            if not window.take(header["seq"]):
                raise BadSignature("repeated-signature")
        return key

    def _check_time(self, header: Mapping[str, Any], now_ms: int) -> None:
        signed = header["iat"]
        until = header.get("exp", signed + VALIDITY_MS)
        in_time = (
            abs(now_ms - signed) <= VALIDITY_MS
            and signed >= self._started_ms
            and until >= now_ms
            and until - signed <= VALIDITY_MS
        )
        if not in_time:
            raise BadSignature("out-of-time")


def _read(signature: str) -> tuple[dict[str, Any], str, bytes]:
    """The header, its text, and the bytes of the signature."""
    try:
        if len(signature) > TEXT_BYTES_MAX:
            raise ValueError("too long")
        outer = strict_json(signature.encode())
        if set(outer) != {"protected", "signature"}:
            raise ValueError("other members")
        protected = outer["protected"]
        header = strict_json(decode(protected))
    except (ValueError, AttributeError, TypeError) as error:
        raise BadSignature("malformed-signature") from error
    if header.get("alg") != ALGORITHM:
        raise BadSignature("other-algorithm")
    extra = set(header) - set(MEMBERS) - {"exp"}
    typed = all(isinstance(header.get(name), kind) and not isinstance(header[name], bool) for name, kind in MEMBERS.items())
    expiry = header.get("exp", 0)
    is_count = typed and all(0 <= number < 1 << 64 for number in (header["iat"], header["seq"]))
    if extra or not is_count or not isinstance(expiry, int) or isinstance(expiry, bool) or expiry < 0:
        raise BadSignature("malformed-signature")
    if header["v"] != VERSION or header["typ"] != COMMAND:
        raise BadSignature("other-algorithm")
    if not 16 <= len(header["nonce"]) <= 64:
        raise BadSignature("malformed-signature")
    try:
        raw = decode(outer["signature"])
    except (ValueError, AttributeError, TypeError) as error:
        raise BadSignature("malformed-signature") from error
    return header, protected, raw
