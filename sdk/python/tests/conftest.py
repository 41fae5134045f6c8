"""Fixtures: a real broker, an observer on it, and services that end with their test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from alicia_sdk import Service

from .bus import TOKEN, Broker, Observer, mosquitto

MakeService = Callable[..., Service]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if mosquitto() is None:
        message = "mosquitto is not installed (apt-get install mosquitto): the tests on a real bus were not run"
        if os.environ.get("ALICIA_REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    directory = tmp_path / "broker"
    directory.mkdir()
    running = Broker(directory)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def observer(broker: Broker) -> Iterator[Observer]:
    one = Observer(broker)
    yield one
    one.close()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that itself runs under supervision is nobody's instance."""
    for name in [*os.environ]:
        if name.startswith("ALICIA_") and name != "ALICIA_REQUIRE_ALL" or name == "PORT":
            monkeypatch.delenv(name)


@pytest.fixture
def make_service(broker: Broker, clean_environment: None) -> Iterator[MakeService]:
    """Makes a service that the broker knows; it is stopped at the end of the test."""
    made: list[Service] = []

    def make(name: str = "thermostat", **options: Any) -> Service:
        service = Service(name, url=broker.url, password=TOKEN, **options)
        made.append(service)
        return service

    yield make
    for service in made:
        service.stop()
