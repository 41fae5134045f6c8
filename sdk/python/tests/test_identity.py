"""Keys, signatures, credentials and the directory, without a bus."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest

from alicia_sdk import ed25519
from alicia_sdk.identity import Directory, Identity, IdentityError
from alicia_sdk.settings import ConfigurationError, Options, Settings
from alicia_sdk.signature import (
    COMMAND,
    VALIDITY_MS,
    BadSignature,
    KnownKey,
    Signer,
    Verifier,
    Window,
    decode,
    detach,
    encode,
    thumbprint,
)

NOW = 1_800_000_000_000
TOPIC = "alicia/lamp/command"

# RFC 8032 section 7.1: secret key, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize("seed, public, message, signature", VECTORS)
def test_the_plain_one_gives_the_vectors_of_the_standard(seed: str, public: str, message: str, signature: str) -> None:
    s, p, m, expected = (bytes.fromhex(text) for text in (seed, public, message, signature))
    assert ed25519.plain_public_key(s) == ed25519.public_key(s) == p
    assert ed25519.plain_sign(s, m) == ed25519.sign(s, m) == expected
    assert ed25519.plain_verify(p, m, expected) and ed25519.verify(p, m, expected)
    for at in range(0, 64, 7):
        changed = bytes(byte ^ (index == at) for index, byte in enumerate(expected))
        assert not ed25519.plain_verify(p, m, changed)
    assert not ed25519.plain_verify(p, m + b"x", expected)


def test_a_signature_in_another_form_is_refused() -> None:
    """One with the group order added to its scalar would verify where nobody looks (RFC 8032 section 8.4)."""
    seed = bytes.fromhex(VECTORS[0][0])
    public, signature = ed25519.public_key(seed), ed25519.sign(seed, b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(signature[32:], "little") + order
    malleable = signature[:32] + scalar.to_bytes(32, "little")
    assert not ed25519.plain_verify(public, b"x", malleable) and not ed25519.verify(public, b"x", malleable)
    for wrong in (b"", public[:31], b"\xff" * 32):
        assert not ed25519.verify(wrong, b"x", signature)


def test_the_key_id_of_rfc_8037() -> None:
    public = decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_base64_has_one_form() -> None:
    assert decode("AA") == b"\0"
    for other in ("AB", "AA==", "A", "A+", "ä", "AA\n"):
        with pytest.raises(ValueError):
            decode(other)


def test_each_number_is_taken_once_and_the_far_past_never() -> None:
    window = Window(0)
    assert [window.take(number) for number in (5, 5, 3, 0, 4 + 1024, 5, 4)] == [True, False, True, False, True, False, False]


SIGNER = Signer(bytes(range(32)), "api")
OTHER = Signer(bytes(range(1, 33)), "other")


def known(kid: str) -> Optional[KnownKey]:
    for signer, seed in ((SIGNER, bytes(range(32))), (OTHER, bytes(range(1, 33)))):
        if signer.kid == kid:
            return KnownKey(ed25519.public_key(seed), signer.source, "i", 1)
    return None


def header(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "alg": "EdDSA",
        "v": 1,
        "kid": SIGNER.kid,
        "iss": "api",
        "topic": TOPIC,
        "typ": COMMAND,
        "iat": NOW,
        "exp": NOW + VALIDITY_MS,
        "seq": random.randrange(10_000, 1 << 40),
        "nonce": "n" * 16,
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def signed(text: str, payload: bytes, seed: bytes = bytes(range(32))) -> str:
    protected = encode(text.encode())
    signature = ed25519.sign(seed, f"{protected}.{encode(payload)}".encode())
    return json.dumps({"protected": protected, "signature": encode(signature)})


FORGERIES: dict[str, Any] = {
    "unknown key": lambda: signed(json.dumps(header(kid=thumbprint(b"\1" * 32))), b"x"),
    "wrong key": lambda: signed(json.dumps(header()), b"x", b"\7" * 32),
    "another's source": lambda: signed(json.dumps(header(iss="other")), b"x"),
    "other topic": lambda: signed(json.dumps(header(topic="alicia/heater/command")), b"x"),
    "expired": lambda: signed(json.dumps(header(iat=NOW - VALIDITY_MS - 1, exp=NOW - 1)), b"x"),
    "from the future": lambda: signed(json.dumps(header(iat=NOW + VALIDITY_MS + 1, exp=None)), b"x"),
    "too long a life": lambda: signed(json.dumps(header(exp=NOW + VALIDITY_MS + 1)), b"x"),
    "before the start": lambda: signed(json.dumps(header(iat=NOW - 1)), b"x"),
    "altered bytes": lambda: signed(json.dumps(header()), b"y"),
    "no algorithm": lambda: signed(json.dumps(header(alg="none")), b"x"),
    "other algorithm": lambda: signed(json.dumps(header(alg="HS256")), b"x"),
    "repeated member": lambda: signed('{"topic":"t",' + json.dumps(header())[1:], b"x"),
    "unknown member": lambda: signed(json.dumps({**header(), "crit": ["b64"]}), b"x"),
    "missing member": lambda: signed(json.dumps(header(nonce=None)), b"x"),
    "wrong type": lambda: signed(json.dumps(header(seq=True)), b"x"),
    "negative number": lambda: signed(json.dumps(header(seq=-1)), b"x"),
    "zero": lambda: signed(json.dumps(header(seq=0)), b"x"),
    "empty": lambda: "",
    "deep": lambda: "[" * 4_000,
    "unprotected header": lambda: signed(json.dumps(header()), b"x")[:-1] + ',"header":{}}',
    "repeated outer member": lambda: '{"protected":"e30",' + signed(json.dumps(header()), b"x")[1:],
    "padded": lambda: signed(json.dumps(header()), b"x").replace('", "sig', '=", "sig'),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_is_refused_and_a_good_one_taken_after_it(kind: str) -> None:
    verifier = Verifier(NOW)
    with pytest.raises(BadSignature):
        verifier.verify(TOPIC, b"x", FORGERIES[kind](), known, NOW)
    good = SIGNER.sign(TOPIC, b"x", NOW)
    assert verifier.verify(TOPIC, b"x", good, known, NOW).source == "api"
    with pytest.raises(BadSignature, match="repeated-signature"):
        verifier.verify(TOPIC, b"x", good, known, NOW)


def test_an_attached_signature_is_taken_apart() -> None:
    outer = json.loads(SIGNER.sign(TOPIC, b'{"a":1}', NOW))
    attached = json.dumps({"payload": encode(b'{"a":1}'), **outer}).encode()
    found = detach(attached)
    assert found is not None and found[0] == b'{"a":1}'
    assert Verifier(NOW).verify(TOPIC, found[0], found[1], known, NOW).source == "api"
    for other in (b"", b"{}", b'{"protected":1}', attached.replace(b'"payload"', b'"payload":"","payload"', 1)):
        assert detach(other) is None


# === The directory ===

ROOT = b"\5" * 32


def document(version: int, seed: bytes = ROOT, rule: str = "permissive") -> dict[str, Any]:
    content = {
        "version": version,
        "roots": [encode(ed25519.public_key(seed))],
        "signatures": {"services": rule, "platform": "permissive"},
        "keys": [{"source": "api", "instance": "i", "epoch": version, "x": encode(ed25519.public_key(bytes(range(32))))}],
    }
    payload = encode(json.dumps(content).encode())
    kid = thumbprint(ed25519.public_key(seed))
    protected = encode(json.dumps({"alg": "EdDSA", "kid": kid, "typ": "alicia-keys"}).encode())
    signature = encode(ed25519.sign(seed, f"{protected}.{payload}".encode()))
    return {"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}


def test_a_directory_is_taken_from_a_known_root_and_never_an_older_one() -> None:
    directory = Directory([encode(ed25519.public_key(ROOT))], {})
    directory.take(document(9, b"\6" * 32))
    assert directory.find(SIGNER.kid) is None, "signed by a stranger"
    for version, expected in ((5, 5), (4, 5), (6, 6)):
        directory.take(document(version))
        found = directory.find(SIGNER.kid)
        assert found is not None and found.epoch == expected
    for broken in (None, {}, {"payload": 1, "signatures": []}, {**document(7), "payload": "e30"}):
        directory.take(broken)
    assert directory.rule("services") == "permissive"
    directory.take(document(7, rule="required"))
    assert directory.rule("services") == "required"


# === The identity ===


def value(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "id": "spiffe://alicia.local/agent/api",
        "service": "api",
        "instance": "01abc",
        "epoch": 7,
        "key": encode(bytes(range(32))),
        "socket": "/nowhere",
        "logs_in": True,
        "roots": [encode(ed25519.public_key(ROOT))],
    }
    return {**base, **changes}


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "identity"
    path.write_text(json.dumps(value()))
    number = os.open(path, os.O_RDONLY)
    os.set_inheritable(number, True)
    yield number
    os.close(number)


def test_an_inherited_descriptor_is_read_and_kept_from_children(descriptor: int) -> None:
    identity = Identity.take({"ALICIA_FD_IDENTITY": str(descriptor)})
    assert identity is not None and (identity.service, identity.epoch) == ("api", 7)
    look = f"import os; print(os.path.exists('/proc/self/fd/{descriptor}'))"
    child = subprocess.run([sys.executable, "-c", look], close_fds=False, capture_output=True, check=True)
    assert child.stdout.strip() == b"False"


def test_the_identity_says_who_the_instance_is(descriptor: int) -> None:
    environment = {
        "ALICIA_FD_IDENTITY": str(descriptor),
        "ALICIA_SERVICE": "other",
        "ALICIA_INSTANCE": "02",
        "ALICIA_MQTT_URL": "mqtt://127.0.0.1:1",
    }
    settings = Settings.read(Options(name="x"), environment)
    assert (settings.service, settings.instance, settings.epoch, settings.username) == ("api", "01abc", 7, "api")
    assert encode(bytes(range(32))) not in repr(settings)


def test_what_is_no_identity_is_refused_in_words(tmp_path: Path) -> None:
    assert Identity.take({}) is None
    path = tmp_path / "identity"
    for content in ("", "[]", "{}", json.dumps(value(key="x")), '{"service":"a","service":"b"}'):
        path.write_text(content)
        with pytest.raises(IdentityError):
            Identity.take({"ALICIA_IDENTITY_FILE": str(path)})
    for number in ("x", "-1", "99999"):
        with pytest.raises(ConfigurationError, match="ALICIA_FD_IDENTITY"):
            Settings.read(Options(name="x"), {"ALICIA_FD_IDENTITY": number, "ALICIA_MQTT_URL": "mqtt://h"})


def test_credentials_come_over_the_socket_and_a_refusal_falls_back_to_the_token(tmp_path: Path) -> None:
    path, token = tmp_path / "renew.sock", tmp_path / "token"
    token.write_text("alt_token\n")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    answers: list[dict[str, Any]] = [{"refused": "not now"}, {"granted": {"credential": "jwt", "expires": 3600.0, "now": 0.0, "roots": []}}]
    proofs: list[dict[str, Any]] = []
    first_seen = threading.Event()

    def serve() -> None:
        for answer in answers:
            one, _ = server.accept()
            with one, one.makefile("rwb") as stream:
                stream.write(b'{"nonce":"n"}\n')
                stream.flush()
                proofs.append(json.loads(stream.readline()))
                if "granted" in answer:
                    assert first_seen.wait(15)
                stream.write(json.dumps(answer).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    identity = Identity(value(socket=str(path)), str(token))
    identity.start()
    assert identity.password(15) == "alt_token"
    first_seen.set()
    thread.join(15)
    with identity._changed:
        assert identity._changed.wait_for(lambda: identity._credential == "jwt", 15)
    identity.stop()
    server.close()
    text = b"alicia-renew\nn\napi\n01abc\n7"
    assert ed25519.verify(ed25519.public_key(bytes(range(32))), text, decode(proofs[0]["proof"]))


def test_a_renewal_over_rest_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, value: Any) -> None:
            asked.append(self.path)
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._answer({"nonce": "n"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer({"credential": "jwt"})

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    # Nobody is there: whoever asks it fails.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        identity = Identity(value(socket="", api=f"http://127.0.0.1:{server.server_port}"))
        assert identity.renew()["credential"] == "jwt"
        server.shutdown()
    assert asked == ["/api/identity/nonce", "/api/identity/renew"]


def test_the_rule_decides_about_commands_without_a_signature() -> None:
    identity = Identity(value())
    assert identity.check(TOPIC, b"x", []) is None
    identity.take_directory(document(5, rule="required"))
    with pytest.raises(BadSignature, match="unsigned"):
        identity.check(TOPIC, b"x", [])
    good = identity.sign(TOPIC, b"x")
    with pytest.raises(BadSignature, match="malformed"):
        identity.check(TOPIC, b"x", [good, good])
    found = identity.check(TOPIC, b"x", [good])
    assert found is not None and found.source == "api"
    identity.take_directory(document(6, rule="off"))
    assert identity.check(TOPIC, b"x", ["nonsense"]) is None
