"""Ed25519 signatures (RFC 8032, section 5.1): with `cryptography` where it is installed, else in plain Python.

The plain one takes some milliseconds a signature and does not run in constant time, which is good enough for the
few commands a second that a service sends and hears: whoever could measure it runs on the same machine as the same
user, and can read the key anyway.
"""

from __future__ import annotations

import hashlib
import importlib
from typing import Any, Optional


def _installed(name: str) -> Any:
    """A module that may not be there: `cryptography` is welcome and not needed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_fast = _installed("cryptography.hazmat.primitives.asymmetric.ed25519")
_forms = _installed("cryptography.hazmat.primitives.serialization")
_faults = _installed("cryptography.exceptions")

KEY_BYTES = 32
"""Bytes of a seed and of a public key."""

SIGNATURE_BYTES = 64

Point = tuple[int, int, int, int]
"""A point in extended homogeneous coordinates: X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z."""

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)


def public_key(seed: bytes) -> bytes:
    """The public key of a seed. Raises `ValueError` when it is not 32 bytes."""
    _check(seed)
    if _fast is not None:
        key: Any = _fast.Ed25519PrivateKey.from_private_bytes(seed).public_key()
        return bytes(key.public_bytes(_forms.Encoding.Raw, _forms.PublicFormat.Raw))
    return plain_public_key(seed)


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature of a message, 64 bytes. Raises `ValueError` when the seed is not 32 bytes."""
    _check(seed)
    if _fast is not None:
        return bytes(_fast.Ed25519PrivateKey.from_private_bytes(seed).sign(message))
    return plain_sign(seed, message)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the signature is the key's, over this message."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    if _fast is None:
        return plain_verify(public, message, signature)
    try:
        _fast.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (_faults.InvalidSignature, ValueError):
        return False
    return True


# === In plain Python ===


def plain_public_key(seed: bytes) -> bytes:
    """As `public_key`."""
    scalar, _ = _expand(seed)
    return _compress(_multiply(scalar, _BASE))


def plain_sign(seed: bytes, message: bytes) -> bytes:
    """As `sign`."""
    scalar, prefix = _expand(seed)
    public = _compress(_multiply(scalar, _BASE))
    nonce = _hash_to_scalar(prefix + message)
    start = _compress(_multiply(nonce, _BASE))
    challenge = _hash_to_scalar(start + public + message)
    return start + ((nonce + challenge * scalar) % _L).to_bytes(32, "little")


def plain_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """As `verify`."""
    point = _decompress(public)
    scalar = int.from_bytes(signature[32:], "little")
    if point is None or scalar >= _L:
        return False
    challenge = _hash_to_scalar(signature[:32] + public + message)
    negative: Point = (_P - point[0], point[1], point[2], _P - point[3])
    found = _add(_multiply(scalar, _BASE), _multiply(challenge, negative))
    return _compress(found) == signature[:32]


def _check(seed: bytes) -> None:
    if len(seed) != KEY_BYTES:
        raise ValueError(f"a seed has {KEY_BYTES} bytes, not {len(seed)}")


def _expand(seed: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar &= (1 << 254) - 8
    return scalar | (1 << 254), digest[32:]


def _hash_to_scalar(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % _L


def _add(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar > 0:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _recover_x(y: int, is_odd: bool) -> Optional[int]:
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    if square == 0:
        return None if is_odd else 0
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P != 0:
        x = x * _SQRT_MINUS_1 % _P
    if (x * x - square) % _P != 0:
        return None
    return _P - x if (x & 1) != is_odd else x


def _compress(point: Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | ((x & 1) << 255)).to_bytes(32, "little")


def _decompress(data: bytes) -> Optional[Point]:
    y = int.from_bytes(data, "little")
    is_odd = bool(y >> 255)
    y &= (1 << 255) - 1
    x = _recover_x(y, is_odd) if y < _P else None
    return None if x is None else (x, y, 1, x * y % _P)


def _base() -> Point:
    y = 4 * pow(5, _P - 2, _P) % _P
    x = _recover_x(y, False)
    assert x is not None, "the base point is on the curve"
    return (x, y, 1, x * y % _P)


_BASE = _base()
