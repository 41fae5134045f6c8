"""A real mosquitto and an observer on it that shares no code with the library under test."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DEADLINE_S = 15.0
TOKEN = "a-secret-token-of-the-tests"


def mosquitto() -> Optional[str]:
    """The program, also where Debian puts it out of the path of a normal user."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Looks again and again until the condition gives something, and fails the test at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s} s for {what}")
        time.sleep(0.01)


class Broker:
    """One mosquitto on a port of its own, with the users `observer`, `thermostat` and `caller`."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._config = directory / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", "connection_messages true"]
        lines.append(f"password_file {directory / 'passwords'}")
        if os.geteuid() == 0:
            lines.append("user root")
        self._config.write_text("\n".join(lines) + "\n")
        (directory / "passwords").touch(mode=0o600)
        self.set_password("observer", "observer")
        for service in ("thermostat", "caller"):
            self.set_password(service, TOKEN)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def set_password(self, user: str, password: str) -> None:
        subprocess.run(["mosquitto_passwd", "-b", str(self._directory / "passwords"), user, password], check=True)

    def start(self) -> None:
        program = mosquitto()
        assert program is not None
        with (self._directory / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([program, "-c", str(self._config)], stdout=log, stderr=log)
        wait_until(self._answers, "mosquitto to listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass(frozen=True)
class Heard:
    """What the observer heard."""

    topic: str
    data: bytes
    retained: bool
    correlation_data: Optional[bytes]

    @property
    def envelope(self) -> dict[str, Any]:
        value = json.loads(self.data)
        assert isinstance(value, dict)
        return value

    @property
    def payload(self) -> Any:
        return self.envelope["payload"]


class Observer:
    """Hears everything and sends anything, over plain paho and MQTT 5."""

    def __init__(self, broker: Broker) -> None:
        versions: Any = getattr(mqtt, "CallbackAPIVersion", None)
        made: Any = mqtt.Client
        first = () if versions is None else (versions.VERSION2,)
        self._client: Any = made(*first, protocol=mqtt.MQTTv5)
        self._client.username_pw_set("observer", "observer")
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = self._hear
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self.heard: list[Heard] = []
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert subscribed.wait(DEADLINE_S)

    def _hear(self, _client: Any, _data: Any, message: Any) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        self.heard.append(Heard(message.topic, bytes(message.payload), bool(message.retain), correlation))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(
        self,
        topic: str,
        payload: Any,
        *,
        retain: bool = False,
        response_topic: Optional[str] = None,
        correlation_data: Optional[bytes] = None,
    ) -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        make_properties: Any = Properties
        properties = make_properties(PacketTypes.PUBLISH)
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation_data is not None:
            properties.CorrelationData = correlation_data
        self._client.publish(topic, data, qos=1, retain=retain, properties=properties)

    def on(self, topic: str) -> list[Heard]:
        return [one for one in list(self.heard) if one.topic == topic]

    def wait(
        self, topic: str, accept: Callable[[Heard], bool] = lambda _: True, deadline_s: float = DEADLINE_S
    ) -> Heard:
        found = wait_until(lambda: [one for one in self.on(topic) if accept(one)], f"a message on {topic}", deadline_s)
        first: Heard = found[0]
        return first

    def command(self, service: str, command: str, arguments: Any = None, reply: str = "observer/replies") -> Heard:
        """Sends an envelope and waits for the answer, all without MQTT 5 properties."""
        correlation = f"{command}-{time.monotonic_ns()}"
        envelope = {
            "message_id": correlation,
            "timestamp": time.time(),
            "source": "observer",
            "message_type": "request",
            "payload": {"command": command, "arguments": arguments},
            "correlation_id": correlation,
            "reply_to": reply,
        }
        self.send(f"alicia/{service}/command", envelope)
        return self.wait(reply, lambda one: one.envelope.get("correlation_id") == correlation)
