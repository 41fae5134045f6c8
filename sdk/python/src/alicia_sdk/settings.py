"""What an instance knows of itself: arguments of `Service`, else the environment of a supervised one."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional
from urllib.parse import unquote, urlsplit

from .identity import Identity, IdentityError
from .topics import Topics, is_id

MQTT_PORT_DEFAULT = 1883
PREFIX_DEFAULT = "alicia"
TOKEN_BYTES_MAX = 65_535
"""The longest MQTT password (MQTT 5 section 1.5.6)."""


CREDENTIAL_TIMEOUT_S = 5.0
"""How long a connection waits for the first credential before it is tried anew."""


class ConfigurationError(Exception):
    """The service cannot start as it is set up; the message says what to change."""


@dataclass(frozen=True)
class Options:
    """What the program itself says; each value that is given wins over the environment, but for the name."""

    name: Optional[str] = None
    url: Optional[str] = None
    username: Optional[str] = None
    password: Optional[str] = None
    token_file: Optional[str] = None
    prefix: Optional[str] = None
    instance: Optional[str] = None
    port: Optional[int] = None


@dataclass(frozen=True)
class Settings:
    """Who the instance is and where the bus is. Secrets are not in its repr."""

    service: str
    instance: str
    epoch: int
    slot: Optional[int]
    prefix: str
    port: Optional[int]
    host: str
    mqtt_port: int
    username: Optional[str]
    credentials: Credentials
    identity: Optional[Identity] = None

    @property
    def topics(self) -> Topics:
        """The topics of this instance."""
        key = None if self.username in (None, self.service) else self.username
        return Topics(self.prefix, self.service, self.instance, key)

    @classmethod
    def read(cls, options: Options, environment: Optional[Mapping[str, str]] = None) -> Settings:
        """Puts the settings together, or raises `ConfigurationError`."""
        env = os.environ if environment is None else environment
        try:
            identity = Identity.take(env)
        except IdentityError as error:
            raise ConfigurationError(str(error)) from None
        # A supervised instance is who the file says it is: one program may run under several names.
        named = identity.service if identity else env.get("ALICIA_SERVICE") or options.name
        service = _id("ALICIA_SERVICE", named, "a name for the service")
        given = identity.instance if identity else options.instance
        instance = given or env.get("ALICIA_INSTANCE") or _new_instance()
        url = options.url or env.get("ALICIA_MQTT_URL")
        if not url:
            raise ConfigurationError(
                "ALICIA_MQTT_URL is not set: start the service with `alicia up`, or say where the bus is, "
                "for example ALICIA_MQTT_URL=mqtt://127.0.0.1:1883"
            )
        host, mqtt_port, url_username, url_password = _read_url(url)
        username = options.username or env.get("ALICIA_MQTT_USERNAME") or url_username
        token_file = options.token_file or env.get("ALICIA_TOKEN_FILE")
        credentials = Credentials(options.password or url_password, token_file)
        if identity and identity.logs_in and not options.password:
            credentials, username = Credentials(None, None, identity), service
        if credentials.given and not username:
            username = service
        port = options.port if options.port is not None else _number("PORT", env, 65_535)
        return cls(
            service=service,
            instance=_id("ALICIA_INSTANCE", instance, "an id for the instance"),
            epoch=identity.epoch if identity else _number("ALICIA_EPOCH", env, (1 << 64) - 1) or 0,
            slot=_number("ALICIA_SLOT", env, (1 << 32) - 1),
            prefix=_id("ALICIA_TOPIC_PREFIX", options.prefix or env.get("ALICIA_TOPIC_PREFIX") or PREFIX_DEFAULT, ""),
            port=port or None,
            host=host,
            mqtt_port=mqtt_port,
            username=username,
            credentials=credentials,
            identity=identity,
        )


class Credentials:
    """The password of the bus: a credential, a token file, read again at each connect, or a fixed text."""

    def __init__(
        self, password: Optional[str], token_file: Optional[str], identity: Optional[Identity] = None
    ) -> None:
        self._identity = identity
        self._password = password
        self._token_file = token_file

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return bool(self._identity or self._password or self._token_file)

    def read(self) -> Optional[str]:
        """The password as it is now. Raises `OSError` or `ValueError` when the file cannot be used."""
        if self._identity:
            return self._identity.password(CREDENTIAL_TIMEOUT_S)
        if self._password:
            return self._password
        if not self._token_file:
            return None
        with Path(self._token_file).open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX + 1).strip()
        if not 0 < len(token) <= TOKEN_BYTES_MAX:
            raise ValueError("the file that ALICIA_TOKEN_FILE names is empty or too large for a token")
        return token.decode()


def _id(variable: str, value: Optional[str], what: str) -> str:
    if not value:
        raise ConfigurationError(f"{variable} is not set and Service(…) was given no value: it needs {what}")
    if not is_id(value):
        raise ConfigurationError(f"{variable}: {value!r} is not an id, expected 1 to 63 of a-z, 0-9 and -")
    return value


def _number(variable: str, env: Mapping[str, str], largest: int) -> Optional[int]:
    text = env.get(variable)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= largest):
        raise ConfigurationError(f"{variable}: {text!r} is not a number from 0 to {largest}")
    return int(text)


def _new_instance() -> str:
    """An id that sorts by time, for an instance that nobody supervises."""
    return f"{int(time.time() * 1000):011x}-{uuid.uuid4().hex[:12]}"


def _read_url(url: str) -> tuple[str, int, Optional[str], Optional[str]]:
    # The URL may hold a password, so that no message repeats it.
    wrong = ConfigurationError("ALICIA_MQTT_URL is not of the form mqtt://HOST:PORT")
    try:
        parts = urlsplit(url)
        port = parts.port or MQTT_PORT_DEFAULT
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("mqtt", "tcp") or not parts.hostname or parts.path.strip("/"):
        raise wrong
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    return parts.hostname, port, username, password
