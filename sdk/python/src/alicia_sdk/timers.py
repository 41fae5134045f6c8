"""One thread that calls things again and again: heartbeats, renewals, the `every` of a service."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from itertools import count
from typing import Callable

log = logging.getLogger("alicia_sdk")


class Timers:
    """Actions with their intervals. An action must return soon; what takes time belongs in the pool."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, float, Callable[[], None]]] = []
        self._order = count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="alicia-timers", daemon=True)

    def add(self, interval_s: float, action: Callable[[], None]) -> None:
        """Calls the action now and then at this interval."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic(), next(self._order), interval_s, action))
            self._changed.notify()

    def start(self) -> None:
        """Begins to call."""
        self._thread.start()

    def stop(self) -> None:
        """Calls nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            action = self._next()
            if action is None:
                return
            try:
                action()
            except Exception:
                log.exception("a timer failed")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if self._heap and self._heap[0][0] <= now:
                    due, order, interval_s, action = heapq.heappop(self._heap)
                    # After a pause of the machine there is one call, not one for each that was missed.
                    heapq.heappush(self._heap, (max(due + interval_s, now), order, interval_s, action))
                    return action
                self._changed.wait(self._heap[0][0] - now if self._heap else None)
            return None
