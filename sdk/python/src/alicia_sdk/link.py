"""The connection to the bus: MQTT 5 on paho-mqtt, 1.6 or 2.x.

```text
 waiting --connect--> connecting --CONNACK--> subscribing --every SUBACK--> connected
    ^---------------- lost: back-off with jitter ----------------'
```

One thread owns paho and is the only one that calls it: other threads put messages into a bounded queue and wake
it. A new paho client is made for each connection, so that no half-done state of the last one remains; what the
broker had not acknowledged is sent again, so that delivery is at least once.
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Optional

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .envelope import SOURCE_PROPERTY
from .settings import Settings
from .signature import SIGNATURE_PROPERTY

log = logging.getLogger("alicia_sdk")

KEEPALIVE_S = 15
"""A broker calls a client lost after one and a half of these."""

CONNECT_TIMEOUT_S = 10.0
"""How long a broker may take from the connection to the last SUBACK."""

BACK_OFF_FIRST_S = 0.2
BACK_OFF_LAST_S = 10.0
"""A fleet that lost its host wants to be back within seconds, without all coming at once."""

QUEUE_MAX = 1_000
"""Messages that wait for a connection; a newer one is refused, not an older one thrown away."""

IN_FLIGHT_MAX = 64
"""Messages sent and not yet acknowledged."""

PACKET_BYTES_MAX = 2 << 20
"""Larger packets are not even received: twice the largest message that is read."""

_Properties: Any = Properties  # paho 2 is typed, but not its properties


@dataclass(frozen=True)
class Outgoing:
    """A message on its way out."""

    topic: str
    data: bytes
    qos: int = 1
    retain: bool = False
    response_topic: Optional[str] = None
    correlation_data: Optional[bytes] = None
    expiry_s: Optional[int] = None
    signature: Optional[str] = None
    """The detached signature of a command."""
    is_urgent: bool = False
    """Whether it is taken even when the queue is full: the few messages that keep the service present."""

    def properties(self) -> Any:
        """The MQTT 5 properties."""
        properties = _Properties(PacketTypes.PUBLISH)
        if self.response_topic is not None:
            properties.ResponseTopic = self.response_topic
        if self.correlation_data is not None:
            properties.CorrelationData = self.correlation_data
        if self.expiry_s is not None:
            properties.MessageExpiryInterval = self.expiry_s
        if self.signature is not None:
            properties.UserProperty = (SIGNATURE_PROPERTY, self.signature)
        return properties


@dataclass(frozen=True)
class Incoming:
    """A message as it arrived."""

    topic: str
    data: bytes
    retained: bool
    response_topic: Optional[str]
    correlation_data: Optional[bytes]
    source: Optional[str]
    """The authenticated sender, when the broker names it."""
    signatures: tuple[str, ...] = ()
    """The detached signatures; one at most is meant."""


@dataclass(frozen=True)
class LinkEvents:
    """What the link tells. Called on its thread: must return soon and must not raise."""

    will: Callable[[], Outgoing]
    connected: Callable[[], None]
    heard: Callable[[Incoming], None]


class Link:
    """The one connection of a service."""

    def __init__(self, settings: Settings, filters: list[str], events: LinkEvents) -> None:
        self._settings = settings
        self._filters = filters
        self._events = events
        self._outbound: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._lock = threading.Lock()
        self._flushed = threading.Condition(self._lock)
        self._subscriptions: dict[int, str] = {}
        self._refused: list[str] = []
        self._closing = threading.Event()
        self._connected = False
        self._failures = 0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="alicia-link", daemon=True)

    # === For any thread ===

    def start(self) -> None:
        """Begins to connect, and goes on for ever."""
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the bus is there now, with every subscription."""
        return self._connected

    @property
    def refused(self) -> list[str]:
        """The filters that the broker did not let it subscribe to."""
        return list(self._refused)

    def send(self, message: Outgoing) -> bool:
        """Queues a message; False when the queue is full."""
        with self._lock:
            if len(self._outbound) >= QUEUE_MAX and not message.is_urgent:
                return False
            self._outbound.append(message)
        self._wake()
        return True

    def close(self, deadline: float) -> bool:
        """Sends what is queued, says goodbye and ends; False when the deadline cut it short."""
        with self._flushed:
            while self._connected and (self._outbound or self._in_flight):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._flushed.wait(left)
            flushed = not (self._outbound or self._in_flight)
        self._closing.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(max(deadline - time.monotonic(), 0.5))
        return flushed

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except BlockingIOError:
            pass  # it is awake already

    # === The link's own thread ===

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._connect_and_serve()
            except OSError as error:
                log.warning("cannot use the bus: %s", error.strerror or type(error).__name__)
            except Exception:
                # paho raises what it likes on bytes that are not MQTT.
                log.exception("the connection to the bus failed")
            self._after_connection()
            if not self._closing.is_set():
                self._closing.wait(self._back_off())

    def _back_off(self) -> float:
        """Doubles with each failure, half of it random."""
        wait = min(BACK_OFF_FIRST_S * 2.0 ** min(self._failures, 16), BACK_OFF_LAST_S)
        self._failures += 1
        return wait * random.uniform(0.5, 1.0)

    def _after_connection(self) -> None:
        with self._flushed:
            was_connected, self._connected = self._connected, False
            self._outbound.extendleft(reversed(list(self._in_flight.values())))
            self._in_flight.clear()
            self._subscriptions.clear()
            self._flushed.notify_all()
        if was_connected and not self._closing.is_set():
            log.warning("lost the connection to the bus")

    def _connect_and_serve(self) -> None:
        client = self._new_client()
        properties = _Properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        with selectors.DefaultSelector() as selector:
            client.connect(
                self._settings.host,
                self._settings.mqtt_port,
                keepalive=KEEPALIVE_S,
                clean_start=True,
                properties=properties,
            )
            sock = client.socket()
            selector.register(sock, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            try:
                self._serve(client, sock, selector)
            finally:
                # paho closes the socket of a lost connection itself, and after an exception not at all.
                if client.socket() is not None:
                    client.socket().close()

    def _serve(self, client: Any, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        ready_deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while client.socket() is not None:
            if self._closing.is_set():
                self._say_goodbye(client)
                return
            if not self._connected and time.monotonic() > ready_deadline:
                raise TimeoutError(0, "the broker did not answer the connection in time")
            self._send_queued(client)
            interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
            selector.modify(sock, interest)
            for key, ready in selector.select(timeout=1.0):
                if key.fileobj is self._wake_read:
                    self._drain_wake()
                    continue
                if ready & selectors.EVENT_READ:
                    client.loop_read()
                if ready & selectors.EVENT_WRITE:
                    client.loop_write()
            client.loop_misc()

    def _drain_wake(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _send_queued(self, client: Any) -> None:
        while self._connected:
            with self._lock:
                if not self._outbound or len(self._in_flight) >= IN_FLIGHT_MAX:
                    return
                message = self._outbound.popleft()
            info = client.publish(
                message.topic, message.data, message.qos, message.retain, properties=message.properties()
            )
            with self._flushed:
                if message.qos > 0:
                    self._in_flight[info.mid] = message
                self._flushed.notify_all()

    def _say_goodbye(self, client: Any) -> None:
        """A DISCONNECT, so that the broker does not publish the last will."""
        client.disconnect()
        deadline = time.monotonic() + 1.0
        while client.socket() is not None and client.want_write() and time.monotonic() < deadline:
            client.loop_write()

    def _new_client(self) -> Any:
        settings = self._settings
        client_id = f"{settings.service}-{settings.instance}"
        versions: Any = getattr(mqtt, "CallbackAPIVersion", None)  # since paho 2.0
        made: Any = mqtt.Client
        if versions is None:
            client = made(client_id=client_id, protocol=mqtt.MQTTv5)
        else:
            client = made(versions.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        password = settings.credentials.read()
        if settings.username is not None:
            client.username_pw_set(settings.username, password)
        will = self._events.will()
        client.will_set(will.topic, will.data, will.qos, will.retain)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        # With this set paho leaves all writing to the loop above.
        client.on_socket_register_write = lambda *_: None
        return client

    # The callbacks of both versions have these arguments in this order where MQTT 5 is spoken.

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any = None) -> None:
        if reason.value >= 0x80:
            log.error("the bus refused the connection: %s", reason)
            return
        self._refused.clear()
        for text in self._filters:
            _, mid = client.subscribe(text, qos=1)
            self._subscriptions[mid] = text

    def _on_subscribe(self, client: Any, _data: Any, mid: int, reasons: Any, _properties: Any = None) -> None:
        text = self._subscriptions.pop(mid, "?")
        if any(reason.value >= 0x80 for reason in reasons):
            if text.startswith("$share/"):
                # A broker without shared subscriptions: then every instance hears what is said to the service.
                log.info("the broker refused the shared subscription to %s", text)
                plain = text.split("/", 2)[2]
                _, again = client.subscribe(plain, qos=1)
                self._subscriptions[again] = plain
                return
            self._refused.append(text)
            log.error("the bus refused the subscription to %s: add it to allow.subscribe of the service", text)
        if not self._subscriptions and not self._connected:
            # Only now: who reads of this service in the registry may send it a command at once.
            self._connected = True
            self._failures = 0
            log.info("connected to the bus")
            self._events.connected()

    def _on_publish(self, _client: Any, _data: Any, mid: int, *rest: Any) -> None:
        with self._flushed:
            message = self._in_flight.pop(mid, None)
            self._flushed.notify_all()
        # paho 1.6 does not say whether the broker refused.
        if rest and message is not None and getattr(rest[0], "value", 0) >= 0x80:
            log.error("the bus refused a message to %s: %s", message.topic, rest[0])

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        properties = message.properties
        pairs = list(getattr(properties, "UserProperty", None) or [])
        users = dict(pairs)
        self._events.heard(
            Incoming(
                topic=message.topic,
                data=bytes(message.payload),
                retained=bool(message.retain),
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation_data=getattr(properties, "CorrelationData", None),
                source=users.get(SOURCE_PROPERTY),
                signatures=tuple(value for name, value in pairs if name == SIGNATURE_PROPERTY),
            )
        )
