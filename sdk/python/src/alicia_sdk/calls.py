"""Calls that wait for their answer."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Optional

from .envelope import Received
from .problem import Problem

CALLS_MAX = 1_000
"""Calls that may wait at once."""


class Refused(Exception):
    """The answer was an error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class PendingCalls:
    """The calls of one instance by correlation id."""

    def __init__(self) -> None:
        self._calls: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()

    def open(self, correlation_id: str) -> Future[Any]:
        """A place for the answer."""
        with self._lock:
            if len(self._calls) >= CALLS_MAX:
                raise RuntimeError(f"{CALLS_MAX} calls wait for an answer already")
            future: Future[Any] = Future()
            self._calls[correlation_id] = future
            return future

    def close(self, correlation_id: str) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._calls.pop(correlation_id, None)

    def answer(self, received: Received, correlation_data: Optional[bytes]) -> bool:
        """Hands an answer to who waits for it; False when nobody does."""
        correlation_id = received.field("correlation_id")
        if correlation_data is not None:
            correlation_id = correlation_data.decode("utf-8", "replace")
        with self._lock:
            future = self._calls.pop(correlation_id, None) if correlation_id else None
        if future is None:
            return False
        if received.field("message_type") == "error":
            future.set_exception(Refused(Problem.from_json(received.payload)))
        else:
            future.set_result(received.payload)
        return True
