"""The example as a program of its own: environment, signals, last will, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from .bus import TOKEN, Broker, Observer

EXAMPLE = Path(__file__).parent.parent / "examples" / "thermostat.py"
HEARTBEAT = "alicia/system/health/thermostat"


def environment(**values: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, **values}


@pytest.fixture
def program(broker: Broker, observer: Observer, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    supervised = environment(
        ALICIA_SERVICE="thermostat",
        ALICIA_INSTANCE="i-1",
        ALICIA_EPOCH="4",
        ALICIA_MQTT_URL=broker.url,
        ALICIA_MQTT_USERNAME="thermostat",
        ALICIA_TOKEN_FILE=str(token),
    )
    running = subprocess.Popen([sys.executable, str(EXAMPLE)], env=supervised, stderr=subprocess.PIPE, text=True)
    yield running
    if running.poll() is None:
        running.kill()
    running.communicate()


def test_the_example_is_at_most_twenty_lines() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_gracefully(
    program: subprocess.Popen[str], observer: Observer, number: signal.Signals
) -> None:
    assert observer.wait("alicia/system/discovery/register").payload["epoch"] == 4
    assert observer.wait("alicia/thermostat/heating").payload == {"on": False}
    assert observer.command("thermostat", "set", {"target": 25}).payload["target"] == 25.0
    program.send_signal(number)
    assert program.wait(10) == 0
    observer.wait(HEARTBEAT, lambda one: one.payload["status"] == "stopping")
    left = observer.wait("alicia/system/discovery/unregister")
    assert left.payload == {"service": "thermostat", "instance": "i-1"}
    statuses = [one.payload["status"] for one in observer.on(HEARTBEAT)]
    assert "offline" not in statuses and statuses[-1] == "stopping"


def test_its_last_will_tells_of_a_sudden_death(program: subprocess.Popen[str], observer: Observer) -> None:
    observer.wait("alicia/system/discovery/register")
    program.kill()
    will = observer.wait(HEARTBEAT, lambda one: one.payload["status"] == "offline")
    assert (will.payload["service"], will.payload["instance"]) == ("thermostat", "i-1")
    assert will.envelope["source"] == "thermostat"


def test_without_a_bus_in_its_environment_it_says_what_to_do() -> None:
    ended = subprocess.run([sys.executable, str(EXAMPLE)], env=environment(), capture_output=True, text=True)
    assert ended.returncode == 78
    assert "ALICIA_MQTT_URL is not set: start the service with `alicia up`" in ended.stderr
    assert "Traceback" not in ended.stderr
