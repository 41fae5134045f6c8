"""How the service is: status, uptime, counters and use of resources, as a heartbeat tells them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional

STATUSES = ("healthy", "degraded", "unhealthy")
"""What a service may say of itself; the other three come by themselves."""

CPU_WINDOW_S = 1.0
"""Over less the clocks are too coarse, and whoever asks often would see noise."""


class Vitals:
    """Counts and states of one instance. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._counters: defaultdict[str, float] = defaultdict(float)
        self._status = "healthy"
        self._detail: Optional[str] = None
        self._cpu_at = (time.monotonic(), time.process_time())
        self._cpu_cores_used = 0.0
        self._in_flight = 0

    def count(self, name: str, amount: float = 1) -> None:
        """Raises a counter."""
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError("a counter only rises")
        with self._lock:
            self._counters[name] += amount

    def set(self, status: str, detail: Optional[str] = None) -> None:
        """Says how the service is, and why in one line when it is not well."""
        if status not in STATUSES:
            raise ValueError(f"{status!r} is no status, expected one of {', '.join(STATUSES)}")
        with self._lock:
            self._status, self._detail = status, detail

    def get(self) -> tuple[str, Optional[str]]:
        """The status and why."""
        with self._lock:
            return self._status, self._detail

    def report(self) -> dict[str, Any]:
        """The part of a heartbeat that is measured."""
        with self._lock:
            counters = dict(self._counters)
        return {
            "uptime_s": round(time.monotonic() - self._started, 3),
            "counters": counters,
            "resources": self._resources(),
        }

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Counts a command while it is carried out."""
        with self._lock:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _resources(self) -> dict[str, float]:
        resources = {"cpu": self._cpu_cores(), "in_flight": float(self._in_flight)}
        memory = _memory_bytes()
        if memory is not None:
            resources["memory_bytes"] = float(memory)
        return resources

    def _cpu_cores(self) -> float:
        """Cores in use, measured over the last window of at least `CPU_WINDOW_S`."""
        with self._lock:
            wall, cpu = time.monotonic(), time.process_time()
            wall_before, cpu_before = self._cpu_at
            if wall - wall_before >= CPU_WINDOW_S:
                self._cpu_cores_used = round((cpu - cpu_before) / (wall - wall_before), 4)
                self._cpu_at = (wall, cpu)
            return self._cpu_cores_used


def _memory_bytes() -> Optional[int]:
    """Resident memory; None where there is no Linux `/proc`."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
