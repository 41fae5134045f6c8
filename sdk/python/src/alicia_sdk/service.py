"""A service: what it does is declared with decorators, and `run` does the rest.

```python
service = Service("thermostat", version="1.0.0")

@service.command("set")
def set_target(target: float) -> dict: ...

service.run()
```
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import signal
import sys
import threading
import uuid
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable, Mapping, Optional, Sequence, TypeVar, Union

from .calls import Refused
from .declaration import KINDS, METADATA_BYTES_MAX, Declaration, Listener, Ticker
from .engine import Engine
from .envelope import BROADCAST, Address
from .link import Outgoing
from .page import HealthPage
from .problem import CallFailed, CallTimeout
from .settings import ConfigurationError, Options, Settings
from .topics import is_filter, is_id, is_topic
from .vitals import Vitals

log = logging.getLogger("alicia_sdk")

EXIT_CONFIGURATION = 78
"""`EX_CONFIG` of sysexits.h: the same start would fail again."""

DRAIN_S = 5.0
"""How long a stop waits for handlers: half of the grace that the orchestrator gives unless told otherwise."""

CALL_TIMEOUT_S = 5.0

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Service:
    """One instance of one service on the bus.

    What is given here wins over the environment of a supervised instance, except for the name: a supervised
    instance is who `alicia.yaml` says it is.
    """

    def __init__(
        self,
        name: Optional[str] = None,
        *,
        version: str = "0.1.0",
        kind: str = "service",
        capabilities: Sequence[Union[str, Mapping[str, Any]]] = (),
        labels: Optional[Mapping[str, str]] = None,
        metadata: Optional[Mapping[str, Any]] = None,
        workers: int = 4,
        url: Optional[str] = None,
        username: Optional[str] = None,
        password: Optional[str] = None,
        token_file: Optional[str] = None,
        prefix: Optional[str] = None,
        instance: Optional[str] = None,
        port: Optional[int] = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind, expected one of {', '.join(KINDS)}")
        if len(json.dumps(dict(metadata or {}))) > METADATA_BYTES_MAX:
            raise ValueError(f"metadata has more than {METADATA_BYTES_MAX} bytes of JSON")
        self._options = Options(name, url, username, password, token_file, prefix, instance, port)
        self._declaration = Declaration(
            version=version,
            kind=kind,
            workers=workers,
            capabilities=[{"name": one} if isinstance(one, str) else dict(one) for one in capabilities],
            labels=dict(labels or {}),
            metadata=dict(metadata or {}),
        )
        self._vitals = Vitals()
        self._engine: Optional[Engine] = None
        self._page: Optional[HealthPage] = None
        self._stopped = False
        self._stop_lock = threading.Lock()
        self._stop_pipe = os.pipe()
        self._declaration.commands.add("ping", self._ping)
        self._declaration.commands.add("status", self._status)

    # === What the service does ===

    def command(self, name: Optional[str] = None) -> Callable[[Handler], Handler]:
        """Answers a command. Its arguments are the parameters of the handler, checked against their annotations.

        What the handler returns is the answer. A parameter annotated with `Message` gets the message itself.
        Handlers of commands run side by side, on several threads.
        """

        def declare(handler: Handler) -> Handler:
            _refuse_async(handler)
            self._declare()
            self._declaration.commands.add(name or handler.__name__.replace("_", "-"), handler)
            return handler

        return declare

    def capability(
        self,
        name: Optional[str] = None,
        *,
        version: str = "0.1.0",
        description: Optional[str] = None,
        input: Optional[Mapping[str, Any]] = None,
        output: Optional[Mapping[str, Any]] = None,
        tags: Sequence[str] = (),
        cost_usd: Optional[float] = None,
        latency_ms: Optional[float] = None,
    ) -> Callable[[Handler], Handler]:
        """Something that the service can do, and how: a command that others find by name, version and tags.

        `alicia call`, REST and `use` have it carried out by exactly one instance. The schemas of its input and output
        come from the annotations of the handler unless they are given; inputs that do not fit are refused before the
        handler is called. The description is the first line of the handler's documentation unless it is given.
        """

        if name is not None and not is_id(name):
            raise ValueError(f"{name!r} cannot name a capability, expected 1 to 63 of a-z, 0-9 and -")

        def declare(handler: Handler) -> Handler:
            _refuse_async(handler)
            self._declare()
            own = name or handler.__name__.replace("_", "-").lower()
            signature = self._declaration.commands.add(own, handler, None if input is None else dict(input))
            lines = (handler.__doc__ or "").strip().splitlines()
            said = {
                "name": own,
                "version": version,
                "description": description or (lines[0] if lines else None),
                "input_schema": dict(input) if input is not None else signature.input_schema(),
                "output_schema": dict(output) if output is not None else signature.output_schema(),
                "tags": list(tags),
                "cost_usd": cost_usd,
                "latency_ms": latency_ms,
            }
            self._declaration.capabilities.append({key: value for key, value in said.items() if value is not None})
            return handler

        return declare

    def on(self, topic: str) -> Callable[[Handler], Handler]:
        """Hears the messages of a topic or filter: `rooms/+/temperature`, without the prefix.

        One handler gets one message at a time, in the order of arrival. Delivery may repeat.
        """
        if not is_filter(topic.removeprefix("/")):
            raise ValueError(f"{topic!r} is not a topic or filter of MQTT")

        def declare(handler: Handler) -> Handler:
            _refuse_async(handler)
            self._declare()
            self._declaration.listeners.append(Listener(topic, handler))
            return handler

        return declare

    def every(self, seconds: float) -> Callable[[Handler], Handler]:
        """Calls the handler at the start and then at this interval; never twice at once."""
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"{seconds} s is not an interval")

        def declare(handler: Handler) -> Handler:
            _refuse_async(handler)
            self._declare()
            self._declaration.tickers.append(Ticker(seconds, handler))
            return handler

        return declare

    # === What handlers use ===

    def publish(
        self,
        topic: str,
        payload: Any,
        *,
        retain: bool = False,
        qos: int = 1,
        ttl: Optional[float] = None,
        destination: str = BROADCAST,
    ) -> bool:
        """Publishes an event, or with `retain` a state, under the prefix. Safe in any thread.

        Without a connection it waits in a queue of 1,000 messages; False means that the queue is full and the
        message is lost. Raises `ValueError` when it can never be sent.
        """
        engine = self._running()
        absolute = engine.topics.absolute(topic)
        if not topic or not is_topic(absolute):
            raise ValueError(f"{topic!r} is not a topic that one can publish to")
        if qos not in (0, 1):
            raise ValueError(f"QoS {qos} is not offered, expected 0 or 1")
        data = engine.write(payload, Address(destination=destination, ttl=ttl))
        expiry_s = None if ttl is None else max(1, math.ceil(ttl))
        return engine.send(Outgoing(absolute, data, qos, retain, expiry_s=expiry_s))

    def call(
        self,
        service: str,
        command: str,
        arguments: Optional[Mapping[str, Any]] = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Any:
        """Has another service carry out a command and returns its answer.

        Blocks its thread until then, at most for `timeout` seconds. Raises `CallFailed` when the service answers
        with an error, `CallTimeout` when no answer comes in time. The fleet's file must allow the call:
        `allow: {command: [<service>]}`.
        """
        engine = self._running()
        if not is_id(service):
            raise ValueError(f"{service!r} is not the name of a service")
        payload = {"command": command, "arguments": dict(arguments or {})}
        return self._ask(engine.topics.command_of(service), payload, (service, command), timeout)

    def use(self, capability: str, input: Optional[Mapping[str, Any]] = None, timeout: float = CALL_TIMEOUT_S) -> Any:
        """Has a capability carried out by exactly one instance that fits and is well, and returns its output.

        The registry chooses the instance and checks input and output. Raises as `call` does.
        """
        if not is_id(capability):
            raise ValueError(f"{capability!r} is not the name of a capability")
        timeout_ms = max(1, math.ceil(timeout * 1000))
        payload = {"capability": capability, "input": dict(input or {}), "timeout": f"{timeout_ms}ms"}
        answer = self._ask(self._running().topics.call, payload, ("registry", capability), timeout)
        return answer["output"]

    def _ask(self, topic: str, payload: Any, what: tuple[str, str], timeout: float) -> Any:
        """Sends a request and waits for its answer; `what` is who is asked for what."""
        engine = self._running()
        service, command = what
        correlation_id = str(uuid.uuid4())
        address = Address("request", service, timeout, correlation_id, engine.topics.replies)
        data = engine.write(payload, address)
        request = Outgoing(
            topic,
            data,
            signature=engine.sign(topic, data),
            response_topic=engine.topics.replies,
            correlation_data=correlation_id.encode(),
            expiry_s=max(1, math.ceil(timeout)),
        )
        answer = engine.calls.open(correlation_id)
        try:
            if not engine.send(request):
                raise CallTimeout(f"{service} {command}: the queue to the bus is full")
            return _wait(answer, f"{service} {command}: no answer within {timeout} s", timeout)
        except Refused as refused:
            raise CallFailed(service, command, refused.problem) from None
        finally:
            engine.calls.close(correlation_id)

    def count(self, name: str, amount: float = 1) -> None:
        """Raises a counter of the heartbeat."""
        self._vitals.count(name, amount)

    def set_health(self, status: str, detail: Optional[str] = None) -> None:
        """Says that the service is `healthy`, `degraded` or `unhealthy`, and why; tells the bus at once."""
        self._vitals.set(status, detail)
        if self._engine is not None:
            self._engine.report()

    @property
    def is_connected(self) -> bool:
        """Whether the bus is there now."""
        return self._engine is not None and self._engine.is_connected

    # === Its life ===

    def run(self) -> None:
        """Runs until SIGTERM, SIGINT or `ask_to_stop`; returns after a graceful stop.

        Ends the program with exit code 78 and one line on stderr when it is not set up to run.
        """
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
        try:
            self.start()
        except ConfigurationError as error:
            print(f"cannot start the service: {error}", file=sys.stderr)
            sys.exit(EXIT_CONFIGURATION)
        os.read(self._stop_pipe[0], 1)
        self.stop()

    def start(self) -> None:
        """Starts without waiting, for a program that has a main loop of its own. Call `stop` at its end."""
        if self._engine is not None:
            raise RuntimeError("a service starts once")
        settings = Settings.read(self._options)
        if settings.port is not None:
            self._page = HealthPage(settings.port, self._health_answer)
        self._engine = Engine(settings, self._declaration, self._vitals)
        self._engine.start()
        if self._page is not None:
            self._page.start()

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stops gracefully: says so, leaves the registry, lets handlers finish, sends what is queued."""
        with self._stop_lock:
            if self._engine is None or self._stopped:
                return
            self._stopped = True
            self._engine.stop(drain_s)
            if self._page is not None:
                self._page.stop()

    def ask_to_stop(self) -> None:
        """Makes `run` stop the service and return. For handlers, and safe in a signal handler."""
        os.write(self._stop_pipe[1], b"\0")

    def _on_signal(self, number: int, _frame: Any) -> None:
        # A second signal ends the program at once, as if this library were not there.
        signal.signal(number, signal.SIG_DFL)
        self.ask_to_stop()

    # === Private parts ===

    def _declare(self) -> None:
        if self._engine is not None:
            raise RuntimeError("handlers are declared before the service starts")

    def _running(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the service has not started")
        return self._engine

    def _ping(self) -> dict[str, Any]:
        beat = self._running().heartbeat()
        return {"service": beat["service"], "instance": beat["instance"], "uptime_s": beat["uptime_s"]}

    def _status(self) -> dict[str, Any]:
        commands = self._declaration.commands.names
        return {**self._running().heartbeat(), "version": self._declaration.version, "commands": commands}

    def _health_answer(self) -> tuple[bool, dict[str, Any]]:
        # A bus that is away makes it degraded, not unwell: a restart of the service would not bring it back.
        beat = self._running().heartbeat()
        return beat["status"] in ("healthy", "degraded"), {**beat, "version": self._declaration.version}


def _wait(answer: Future[Any], otherwise: str, timeout: float) -> Any:
    try:
        return answer.result(timeout)
    except FutureTimeout:
        raise CallTimeout(otherwise) from None


def _refuse_async(handler: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"{handler.__name__} is async; handlers run on threads and are plain functions")
