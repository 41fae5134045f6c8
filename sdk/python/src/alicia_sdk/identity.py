"""Who the instance can prove to be: a key that it was given at its start, or with which it joined.

```text
 ALICIA_FD_IDENTITY ---> key --> renewal (Unix socket) --> credential, new at half of its life --> password of the bus
 ALICIA_IDENTITY_FILE -> key --> renewal (REST) --------->     "
                          '----> signer of calls      directory of keys --> check of commands
```
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Mapping, Optional
from urllib.error import URLError

from . import ed25519
from .signature import (
    ALGORITHM,
    BadSignature,
    KnownKey,
    Signer,
    Verifier,
    decode,
    strict_json,
    thumbprint,
)

log = logging.getLogger("alicia_sdk")

IDENTITY_BYTES_MAX = 64 << 10
ANSWER_BYTES_MAX = 64 << 10
SIGNATURES_MAX = 4
DIRECTORY_TYPE = "alicia-keys"

RENEW_TIMEOUT_S = 15.0
PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 10.0
LIFE_MIN_S = 10.0
"""The shortest life that is believed, so that a wrong clock makes no storm."""

LISTED_PATIENCE_S = 2.0
"""How long the first call waits until the others can know this instance's key. Then it goes anyway."""

RULES = ("required", "permissive", "off")

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy, whatever the environment names: the answer is a credential."""


class IdentityError(Exception):
    """The identity cannot be used; the message says why."""


class Identity:
    """The identity of this instance."""

    def __init__(self, value: Mapping[str, Any], token_file: Optional[str] = None) -> None:
        try:
            self.service = str(value["service"])
            self.instance = str(value["instance"])
            self.epoch = int(value["epoch"])
            self.signer = Signer(decode(value["key"]), self.service)
        except (KeyError, TypeError, ValueError) as error:
            raise IdentityError(f"the identity cannot be read: {type(error).__name__}") from None
        self.logs_in = bool(value.get("logs_in", False))
        self._socket = str(value.get("socket") or "")
        self._api = value.get("api")
        self._token_file = token_file
        self._credential: Optional[str] = None
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._verifier = Verifier(int(time.time() * 1000))
        self._directory = Directory(value.get("roots") or [], value.get("signatures") or {})
        self._thread = threading.Thread(target=self._renew_for_ever, name="alicia-identity", daemon=True)

    @classmethod
    def take(cls, environment: Mapping[str, str]) -> Optional[Identity]:
        """What the environment names; None when it names none. The descriptor is kept from child processes."""
        number, path = environment.get("ALICIA_FD_IDENTITY"), environment.get("ALICIA_IDENTITY_FILE")
        if number:
            if not (number.isascii() and number.isdigit()):
                raise IdentityError(f"ALICIA_FD_IDENTITY: {number!r} is not the number of a descriptor")
            name, path = "ALICIA_FD_IDENTITY", f"/proc/self/fd/{number}"
        elif path:
            name = "ALICIA_IDENTITY_FILE"
        else:
            return None
        try:
            if number:
                os.set_inheritable(int(number), False)
            with Path(path).open("rb") as file:
                value = strict_json(file.read(IDENTITY_BYTES_MAX))
        except (OSError, ValueError, OverflowError) as error:
            raise IdentityError(f"{name}: {path} is not a file with an identity ({type(error).__name__})") from None
        return cls(value, environment.get("ALICIA_TOKEN_FILE"))

    # === Credentials ===

    def start(self) -> None:
        """Begins to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renews no more."""
        self._stopping.set()

    def password(self, timeout_s: float) -> str:
        """The newest credential, waiting for the first one. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._credential is not None, timeout_s):
                raise TimeoutError(0, "there is no credential yet")
            assert self._credential is not None
            return self._credential

    def _renew_for_ever(self) -> None:
        pause = PAUSE_MIN_S
        while not self._stopping.is_set():
            try:
                renewed = self.renew()
            except (OSError, URLError, ValueError, KeyError, TypeError, IdentityError) as error:
                log.warning("no new credential, trying again: %s", error)
                self._fall_back()
                self._stopping.wait(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, PAUSE_MAX_S)
                continue
            pause = PAUSE_MIN_S
            self._directory.add_roots(renewed.get("roots") or [])
            self._set(str(renewed["credential"]))
            life_s = max(float(renewed["expires"]) - float(renewed["now"]), LIFE_MIN_S)
            self._stopping.wait(life_s / 2)

    def _set(self, credential: str) -> None:
        with self._changed:
            self._credential = credential
            self._changed.notify_all()

    def _fall_back(self) -> None:
        """The token of the file until there is a credential; one that is there stays."""
        if self._credential is None and self._token_file:
            try:
                self._set(Path(self._token_file).read_text().strip())
            except OSError as error:
                log.warning("the token file cannot be read either: %s", error.strerror)

    def renew(self) -> dict[str, Any]:
        """One renewal: the host's answer. Raises an `OSError`, a `ValueError` or an `IdentityError`."""
        if self._socket:
            return self._renew_over_socket()
        if self._api:
            return self._renew_over_rest(str(self._api).rstrip("/"))
        raise IdentityError("the identity names neither a socket nor a URL to renew at")

    def _proof(self, nonce: str) -> str:
        text = f"alicia-renew\n{nonce}\n{self.service}\n{self.instance}\n{self.epoch}"
        return self.signer.prove(text.encode())

    def _renew_over_socket(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(RENEW_TIMEOUT_S)
            _connect(one, self._socket)
            with one.makefile("rwb") as stream:
                nonce = str(_line(stream)["nonce"])
                proof = {
                    "service": self.service,
                    "instance": self.instance,
                    "epoch": self.epoch,
                    "proof": self._proof(nonce),
                }
                stream.write(json.dumps(proof).encode() + b"\n")
                stream.flush()
                answer = _line(stream)
        if "refused" in answer:
            raise IdentityError(str(answer["refused"]))
        granted: dict[str, Any] = answer["granted"]
        return granted

    def _renew_over_rest(self, api: str) -> dict[str, Any]:
        nonce = str(_ask(f"{api}/api/identity/nonce")["nonce"])
        request = {
            "name": self.service,
            "instance": self.instance,
            "epoch": self.epoch,
            "nonce": nonce,
            "proof": self._proof(nonce),
        }
        return _ask(f"{api}/api/identity/renew", json.dumps(request).encode())

    # === Signatures ===

    def take_directory(self, document: Any) -> None:
        """Takes the keys of others, when a known root key has signed them."""
        self._directory.take(document)

    def sign(self, topic: str, payload: bytes) -> str:
        """The detached signature of a command; the first waits until others can know the key, for a little while."""
        self._directory.wait_for(self.signer.kid, LISTED_PATIENCE_S)
        return self.signer.sign(topic, payload, int(time.time() * 1000))

    def check(self, topic: str, payload: bytes, signatures: list[str], is_platform: bool = False) -> Optional[KnownKey]:
        """Who signed a command; None for one that needs no signature and has none. Raises `BadSignature`."""
        rule = self._directory.rule("platform" if is_platform else "services")
        if rule == "off":
            return None
        try:
            if len(signatures) > 1:
                raise BadSignature("malformed-signature")
            if signatures:
                now_ms = int(time.time() * 1000)
                return self._verifier.verify(topic, payload, signatures[0], self._directory.find, now_ms)
        except BadSignature as error:
            # Whoever left the signature away would be taken too: the broker's word counts.
            if rule == "permissive" and error.fault == "unknown-key":
                return None
            raise
        if rule == "required":
            raise BadSignature("unsigned")
        return None


class Directory:
    """The keys of others, as the signed directory on the bus lists them."""

    def __init__(self, roots: list[Any], rules: Mapping[str, Any]) -> None:
        self._roots = _keys(roots)
        self._rules = dict(rules)
        self._version = 0
        self._known: dict[str, KnownKey] = {}
        self._changed = threading.Condition()

    def rule(self, kind: str) -> str:
        """Whether commands of this class must be signed."""
        rule = self._rules.get(kind, "permissive")
        return rule if rule in RULES else "required"

    def find(self, kid: str) -> Optional[KnownKey]:
        """The key of this id, while its holder may act."""
        return self._known.get(kid)

    def add_roots(self, roots: list[Any]) -> None:
        """Root keys that a renewal told of; the answer came over the host's own socket."""
        with self._changed:
            self._roots = {**self._roots, **_keys(roots)}

    def wait_for(self, kid: str, patience_s: float) -> None:
        """Waits until a key is listed, at most for so long."""
        with self._changed:
            self._changed.wait_for(lambda: kid in self._known, patience_s)

    def take(self, document: Any) -> None:
        """Takes a document that a known root key has signed and that is not older than the last one."""
        try:
            content = self._open(document)
            version = int(content["version"])
            known = {
                thumbprint(public): KnownKey(public, str(key["source"]), str(key["instance"]), int(key["epoch"]))
                for key in content["keys"]
                for public in [decode(key["x"])]
            }
            roots, rules = _keys(content["roots"]), dict(content["signatures"])
        except (KeyError, TypeError, ValueError, AttributeError, BadSignature) as error:
            log.warning("a directory of keys was not taken: %s", error)
            return
        with self._changed:
            if version < self._version:
                log.warning("a directory of keys was not taken: it is older than the one known")
                return
            self._version, self._known, self._roots, self._rules = version, known, roots, rules
            self._changed.notify_all()

    def _open(self, document: Any) -> dict[str, Any]:
        payload = document["payload"]
        for one in document["signatures"][:SIGNATURES_MAX]:
            header = strict_json(decode(one["protected"]))
            public = self._roots.get(str(header.get("kid")))
            is_ours = header.get("alg") == ALGORITHM and header.get("typ") == DIRECTORY_TYPE and len(header) == 3
            signed = f"{one['protected']}.{payload}".encode()
            if is_ours and public is not None and ed25519.verify(public, signed, decode(one["signature"])):
                return strict_json(decode(payload))
        raise BadSignature("no known root key has signed it")


def _keys(texts: list[Any]) -> dict[str, bytes]:
    found = {}
    for text in texts:
        try:
            public = decode(text)
        except (ValueError, AttributeError, TypeError):
            continue
        found[thumbprint(public)] = public
    return found


def _connect(one: socket.socket, path: str) -> None:
    """A path that is too long for a socket's address is reached through its directory."""
    if len(path.encode()) < 108:
        one.connect(path)
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    try:
        one.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


def _line(stream: Any) -> dict[str, Any]:
    return strict_json(stream.readline(ANSWER_BYTES_MAX))


def _ask(url: str, body: Optional[bytes] = None) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise IdentityError(f"{url.split('/')[0]} is not an address of REST")
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with _direct.open(request, timeout=RENEW_TIMEOUT_S) as answer:
        return strict_json(answer.read(ANSWER_BYTES_MAX))
