"""A service that runs: what comes from the bus goes to handlers, what is due is sent."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import replace
from typing import Any, Callable, Optional

from .calls import PendingCalls
from .declaration import Declaration, Listener, Ticker
from .envelope import Address, Dropped, Message, Received, read, write
from .link import Incoming, Link, LinkEvents, Outgoing
from .pool import Job, Pool
from .problem import Problem
from .settings import Settings
from .signature import BadSignature, detach
from .timers import Timers
from .topics import filter_matches, takes_replies
from .vitals import Vitals

log = logging.getLogger("alicia_sdk")

HEARTBEAT_S = 5.0
LEASE_S = 30.0
RENEW_S = LEASE_S / 3
"""Two renewals may be lost before the lease ends."""

PROTOCOLS = ["1.0.0"]
JOBS_MAX = 256
"""Messages and commands that may wait for a thread."""

DROP_LOG_S = 60.0
"""A sender whose messages are dropped is in the log once in this time."""

SENDERS_MAX = 1_000
"""Senders whose last log line is remembered."""

SEEN_MAX = 1_000
"""Messages that are remembered, to tell a repeated delivery; a broker repeats at most what was in flight."""


class Engine:
    """The parts of a running service, put together."""

    def __init__(self, settings: Settings, declaration: Declaration, vitals: Vitals) -> None:
        self._settings = settings
        self._declaration = declaration
        self.topics = settings.topics
        self.vitals = vitals
        self.calls = PendingCalls()
        self._pool = Pool(declaration.workers, JOBS_MAX)
        self._timers = Timers()
        self._logged: dict[str, float] = {}
        self._seen: dict[tuple[str, str], None] = {}
        self._was_connected = False
        self._stopping = False
        events = LinkEvents(self._last_will, self._on_connected, self._hear)
        self._link = Link(settings, self._filters(), events)

    def _filters(self) -> list[str]:
        filters = [self.topics.check, self.topics.own_command, self.topics.shared_command, self.topics.replies]
        if self._settings.identity is not None:
            filters.insert(0, self.topics.keys)
        filters += [self.topics.absolute(listener.filter) for listener in self._declaration.listeners]
        return list(dict.fromkeys(filters))

    def start(self) -> None:
        """Starts every thread."""
        if self._settings.identity is not None:
            self._settings.identity.start()
        self._pool.start()
        self._link.start()
        self._timers.add(HEARTBEAT_S, self.report)
        self._timers.add(RENEW_S, self._register)
        for ticker in self._declaration.tickers:
            self._timers.add(ticker.interval_s, self._tick(ticker))
        self._timers.start()

    def stop(self, drain_s: float) -> None:
        """Says goodbye, lets handlers finish, sends what is queued; all within the time."""
        deadline = time.monotonic() + drain_s
        self._stopping = True
        self._timers.stop()
        self.report()
        self._send_system(self.topics.unregister, {"service": self._settings.service, "instance": self._settings.instance})
        if not self._pool.close(deadline):
            log.warning("handlers did not finish within %s s", drain_s)
        self._link.close(deadline)
        if self._settings.identity is not None:
            self._settings.identity.stop()

    # === What it says ===

    @property
    def is_connected(self) -> bool:
        """Whether the bus is there now."""
        return self._link.is_connected

    def health(self) -> tuple[str, Optional[str]]:
        """The status that a heartbeat carries, and why."""
        if self._stopping:
            return "stopping", None
        if not self._was_connected:
            return "starting", "not yet connected to the bus"
        status, detail = self.vitals.get()
        if status == "healthy" and not self._link.is_connected:
            return "degraded", "not connected to the bus"
        if status == "healthy" and self._link.refused:
            return "degraded", f"may not subscribe to {', '.join(self._link.refused)}"
        if status == "healthy" and self._pool.is_full:
            return "degraded", f"{JOBS_MAX} messages wait for a thread"
        return status, detail

    def heartbeat(self) -> dict[str, Any]:
        """The heartbeat of this moment."""
        return self._heartbeat(*self.health())

    def _heartbeat(self, status: str, detail: Optional[str]) -> dict[str, Any]:
        beat = {
            "service": self._settings.service,
            "instance": self._settings.instance,
            "status": status,
            "interval_s": HEARTBEAT_S,
            **self.vitals.report(),
        }
        if detail is not None:
            beat["detail"] = detail
        return beat

    def report(self) -> None:
        """Sends a heartbeat. Without a connection there is nobody to tell and nothing to queue."""
        if self._link.is_connected:
            self._send_system(self.topics.heartbeat, self.heartbeat())

    def _register(self) -> None:
        if not self._link.is_connected:
            return
        settings, declaration = self._settings, self._declaration
        endpoints = {"mqtt": self.topics.own_command}
        if settings.port is not None:
            endpoints["http"] = f"http://127.0.0.1:{settings.port}"
        metadata = {"commands": declaration.commands.describe(), **declaration.metadata}
        registration = {
            "service": settings.service,
            "instance": settings.instance,
            "epoch": settings.epoch,
            "kind": declaration.kind,
            "version": declaration.version,
            "protocols": PROTOCOLS,
            "capabilities": declaration.capabilities,
            "endpoints": endpoints,
            "metadata": metadata,
            "labels": declaration.labels,
            "lease_s": LEASE_S,
        }
        self._send_system(self.topics.register, registration)

    def _last_will(self) -> Outgoing:
        beat = self._heartbeat("offline", "the connection broke")
        return Outgoing(self.topics.heartbeat, write(self.topics.source, beat))

    def _send_system(self, topic: str, payload: Any) -> None:
        self._link.send(Outgoing(topic, write(self.topics.source, payload), is_urgent=True))

    def send(self, message: Outgoing) -> bool:
        """Queues a message; False and counted when there is no room."""
        taken = self._link.send(message)
        self.vitals.count("messages_sent" if taken else "messages_refused")
        if not taken and self._may_log("the queue to the bus"):
            log.warning("the queue to the bus is full: a message to %s was not sent", message.topic)
        return taken

    def write(self, payload: Any, address: Address) -> bytes:
        """The bytes of a message of this service."""
        return write(self.topics.source, payload, address)

    def sign(self, topic: str, data: bytes) -> Optional[str]:
        """The detached signature of a command of this service; None when it has no key."""
        identity = self._settings.identity
        return None if identity is None else identity.sign(topic, data)

    def _on_connected(self) -> None:
        self._was_connected = True
        self._register()
        self.report()

    def _tick(self, ticker: Ticker) -> Callable[[], None]:
        """Submits the handler unless its last run has not ended: a slow one is called less often, never twice."""
        idle = threading.Semaphore(1)

        def run() -> None:
            try:
                self._guard(ticker.handler)
            finally:
                idle.release()

        def due() -> None:
            if not idle.acquire(blocking=False):
                self.vitals.count("ticks_skipped")
            elif not self._pool.submit(Job(run)):
                idle.release()
                self.vitals.count("ticks_skipped")

        return due

    # === What it hears; all of this runs on the link's thread until a job is submitted ===

    def _hear(self, incoming: Incoming) -> None:
        self.vitals.count("messages_received")
        try:
            incoming = _detached(incoming)
            received = read(incoming.data, time.time())
            if self._is_repeated(incoming, received):
                self.vitals.count("messages_repeated")
                return
            self._route(incoming, received)
        except Dropped as dropped:
            self._drop(incoming, dropped.reason)

    def _drop(self, incoming: Incoming, reason: str) -> None:
        self.vitals.count(f"dropped_{reason.replace('-', '_')}")
        if self._may_log(incoming.source or incoming.topic):
            log.warning("dropped a message on %s from %s: %s", incoming.topic, incoming.source or "somebody", reason)

    def _may_log(self, about: str) -> bool:
        """Once in a while for each sender, so that one who floods the bus does not flood the log too."""
        now = time.monotonic()
        if now - self._logged.get(about, -math.inf) < DROP_LOG_S:
            return False
        if len(self._logged) >= SENDERS_MAX:
            self._logged.clear()
        self._logged[about] = now
        return True

    def _is_repeated(self, incoming: Incoming, received: Received) -> bool:
        """Whether the broker delivered the same message again, after a break or for a second filter that matches."""
        message_id = received.field("message_id")
        if message_id is None:
            return False
        key = (incoming.source or str(received.field("source")), message_id)
        if key in self._seen:
            return True
        if len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = None
        return False

    def _route(self, incoming: Incoming, received: Received) -> None:
        if self._settings.identity is not None and incoming.topic == self.topics.keys:
            self._settings.identity.take_directory(received.payload)
            return
        if incoming.topic == self.topics.replies:
            if not self.calls.answer(received, incoming.correlation_data):
                raise Dropped("unexpected-answer")
            return
        if incoming.topic in (self.topics.command, self.topics.own_command):
            self._take_command(incoming, received)
        elif incoming.topic == self.topics.check:
            self._answer_check(received.payload)
        message = self._message(incoming, received)
        for listener in self._declaration.listeners:
            if filter_matches(self.topics.absolute(listener.filter), incoming.topic):
                self._take_event(listener, message)

    def _message(self, incoming: Incoming, received: Received) -> Message:
        return Message(
            topic=self.topics.relative(incoming.topic),
            payload=received.payload,
            type=received.field("message_type") or "event",
            source=incoming.source or received.field("source"),
            message_id=received.field("message_id"),
            timestamp=received.field("timestamp"),
            correlation_id=received.field("correlation_id"),
            retained=incoming.retained,
        )

    def _answer_check(self, payload: Any) -> None:
        services = payload.get("services", []) if isinstance(payload, dict) else []
        if not isinstance(services, list):
            raise Dropped("wrong-payload")
        if not services or self._settings.service in services:
            self.report()

    def _take_event(self, listener: Listener, message: Message) -> None:
        if not self._pool.submit(Job(lambda: self._guard(lambda: listener.handler(message)), listener)):
            self.vitals.count("dropped_busy")

    def _guard(self, handler: Callable[[], Any]) -> None:
        try:
            handler()
        except Exception:
            self.vitals.count("handler_errors")
            log.exception("a handler failed")

    def _take_command(self, incoming: Incoming, received: Received) -> None:
        if received.field("message_type") not in (None, "request", "command"):
            raise Dropped("not-a-command")
        if incoming.retained:
            # A retained command would be carried out again at every reconnection.
            raise Dropped("retained-command")
        if not self._trusts(incoming, received):
            return
        if self._pool.submit(Job(lambda: self._run_command(incoming, received))):
            return
        detail = "the service stops" if self._stopping else f"{JOBS_MAX} messages wait already; try again later"
        busy = Problem("service.busy", "The service takes no commands now", 503, detail)
        self._reply(incoming, received, "error", busy.to_json())

    def _trusts(self, incoming: Incoming, received: Received) -> bool:
        """Whether a command may be taken, as far as signatures go. One that may not is counted and answered."""
        identity = self._settings.identity
        if identity is None:
            return True
        try:
            signer = identity.check(incoming.topic, incoming.data, list(incoming.signatures))
            claimed = received.field("source")
            if signer is not None and claimed is not None and claimed != signer.source:
                raise BadSignature("other-source")
        except BadSignature as error:
            if error.fault == "repeated-signature":
                self._drop(incoming, error.fault)
                return False
            is_missing = error.fault == "unsigned"
            self._drop(incoming, "unsigned" if is_missing else "bad-signature")
            code = "bus.signature_required" if is_missing else "bus.bad_signature"
            detail = f"the signature of the command is not accepted: {error.fault}"
            self._reply(incoming, received, "error", Problem(code, "A call failed", 400, detail).to_json())
            return False
        return True

    def _run_command(self, incoming: Incoming, received: Received) -> None:
        ttl = received.field("ttl")
        if ttl is not None and received.field("timestamp") + ttl < time.time():
            self._drop(incoming, "expired")
            return
        self.vitals.count("commands")
        with self.vitals.in_flight():
            kind, payload = self._declaration.commands.run(self._message(incoming, received))
        self._reply(incoming, received, kind, payload)

    def _reply(self, incoming: Incoming, received: Received, kind: str, payload: Any) -> None:
        if kind == "error":
            self.vitals.count("command_errors")
        topic = incoming.response_topic or received.field("reply_to")
        if topic is None:
            return
        senders = [sender for sender in (incoming.source, received.field("source")) if sender]
        if not takes_replies(self.topics.prefix, senders, topic):
            self._drop(incoming, "bad-reply-topic")
            return
        address = Address(
            type=kind,
            destination=received.field("source") or incoming.source or "broadcast",
            correlation_id=received.field("correlation_id") or received.field("message_id"),
        )
        try:
            data = self.write(payload, address)
        except ValueError as error:
            log.error("a command returned what cannot be sent: %s", error)
            self.vitals.count("command_errors")
            problem = Problem("service.failed", "The command failed", 500, f"its result cannot be sent: {error}")
            data = self.write(problem.to_json(), Address("error", address.destination, None, address.correlation_id))
        self.send(Outgoing(topic, data, correlation_data=incoming.correlation_data))


def _detached(incoming: Incoming) -> Incoming:
    """The message with its signature beside it, where that came around it."""
    found = detach(incoming.data)
    if found is None:
        return incoming
    payload, signature = found
    return replace(incoming, data=payload, signatures=(signature, *incoming.signatures))
