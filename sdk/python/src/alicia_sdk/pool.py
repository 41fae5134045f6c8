"""The bounded pool of threads that runs handlers.

Jobs of one *lane* run one at a time, in the order in which they came; different lanes run side by side. Each
handler of messages has its own lane, so that a service sees `21, 22, 23` and never `22, 21, 23`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Optional

log = logging.getLogger("alicia_sdk")


@dataclass(frozen=True)
class Job:
    """Something to run, and the lane it must keep to."""

    run: Callable[[], None]
    lane: Optional[object] = None


class Pool:
    """A fixed number of threads and a bounded queue before them."""

    def __init__(self, threads: int, queue_max: int) -> None:
        if threads < 1 or queue_max < 1:
            raise ValueError("a pool needs at least one thread and room for one job")
        self._threads_wanted = threads
        self._queue_max = queue_max
        self._threads: list[threading.Thread] = []
        self._waiting: deque[Job] = deque()
        self._busy_lanes: set[int] = set()
        self._running = 0
        self._closed = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Starts the threads. They are daemons: a handler that hangs cannot keep the program alive."""
        for number in range(self._threads_wanted):
            thread = threading.Thread(target=self._work, name=f"alicia-handler-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    @property
    def is_full(self) -> bool:
        """Whether the next job would be refused."""
        with self._changed:
            return len(self._waiting) >= self._queue_max

    def submit(self, job: Job) -> bool:
        """Takes a job; False when there is no room or the pool is closed."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._queue_max:
                return False
            self._waiting.append(job)
            self._changed.notify()
            return True

    def close(self, deadline: float) -> bool:
        """Takes no more jobs and waits until all are done; False when the (monotonic) deadline came first."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._waiting or self._running:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _work(self) -> None:
        while True:
            job = self._take()
            if job is None:
                return
            try:
                job.run()
            except Exception:
                # Handlers are guarded where they are called; this is the net below, so that a thread never ends.
                log.exception("a job failed")
            finally:
                self._give_back(job)

    def _take(self) -> Optional[Job]:
        with self._changed:
            while True:
                for index, job in enumerate(self._waiting):
                    if job.lane is None or id(job.lane) not in self._busy_lanes:
                        del self._waiting[index]
                        self._running += 1
                        if job.lane is not None:
                            self._busy_lanes.add(id(job.lane))
                        return job
                if self._closed and not self._waiting:
                    return None
                self._changed.wait()

    def _give_back(self, job: Job) -> None:
        with self._changed:
            self._running -= 1
            if job.lane is not None:
                self._busy_lanes.discard(id(job.lane))
            self._changed.notify_all()
