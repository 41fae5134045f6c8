"""What a service declares before it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

from .commands import Commands
from .envelope import Message

KINDS = ("service", "agent", "tool")

METADATA_BYTES_MAX = 64 << 10
"""The largest `metadata` that the registry takes, in bytes of JSON."""


@dataclass(frozen=True)
class Listener:
    """A handler of messages. It is its own lane: one message at a time, in order."""

    filter: str
    handler: Callable[[Message], Any]


@dataclass(frozen=True)
class Ticker:
    """Something done at an interval."""

    interval_s: float
    handler: Callable[[], Any]


@dataclass
class Declaration:
    """The service as its author wrote it."""

    version: str
    kind: str
    workers: int
    capabilities: list[Any]
    labels: dict[str, str]
    metadata: dict[str, Any]
    commands: Commands = field(default_factory=Commands)
    listeners: list[Listener] = field(default_factory=list)
    tickers: list[Ticker] = field(default_factory=list)
