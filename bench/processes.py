"""Processes under measurement: their stamps, handles that cannot hit a stranger, and their memory."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

# Linux' F_SETPIPE_SZ; room for the stamps of thousands of agents that start at once.
F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
# How long anything that should happen may take before the run is called broken.
DEADLINE_S = 60.0


class Broken(Exception):
    """The run cannot go on; the message says what did not happen."""


def now_ns() -> int:
    """CLOCK_MONOTONIC, the clock of the agents."""
    return time.monotonic_ns()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    """Asks every millisecond until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Broken(f"{what}: not within {seconds:g} s")
        time.sleep(0.001)


@dataclass(frozen=True)
class Stamp:
    """One line of an agent. `pid` is as the agent sees itself, in its own pid namespace."""

    name: str
    pid: int
    ns: int


class Stamps:
    """The FIFO into which every agent writes when its first instruction has run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        # Open for writing too: a FIFO without a writer would report its end again and again.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._fd, F_SETPIPE_SZ, PIPE_BYTES)
        self._rest = b""

    def read(self, seconds: float) -> list[Stamp]:
        """The lines that are there, or that come within the time."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return []
        *lines, self._rest = (self._rest + os.read(self._fd, PIPE_BYTES)).split(b"\n")
        fields = (line.decode().split() for line in lines)
        return [Stamp(name, int(pid), int(ns)) for name, pid, ns in fields]

    def wait_for(self, names: Iterable[str], seconds: float = DEADLINE_S) -> list[Stamp]:
        """All stamps until each of the names has come at least once."""
        missing = set(names)
        found: list[Stamp] = []
        end = time.monotonic() + seconds
        while missing:
            left = end - time.monotonic()
            if left <= 0:
                raise Broken(f"no stamp of {len(missing)} agents, such as {min(missing)}, within {seconds:g} s")
            fresh = self.read(left)
            found += fresh
            missing -= {stamp.name for stamp in fresh}
        return found

    def collect(self, seconds: float) -> list[Stamp]:
        """All stamps of a span of time."""
        found: list[Stamp] = []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            found += self.read(left)
        return found

    def close(self) -> None:
        os.close(self._fd)


class Process:
    """A process held by pidfd: what is signalled is what was meant, also after its pid is used again."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def is_alive(self) -> bool:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return not poller.poll(0)

    def send(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            pass  # It has ended; that is what most signals are for.

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


def wait_for_ends(processes: Iterable[Process], seconds: float = DEADLINE_S) -> int:
    """Waits until all have ended and gives the time at which the last one did."""
    poller = select.poll()
    left = {process.fileno() for process in processes}
    for fd in left:
        poller.register(fd, select.POLLIN)
    end = time.monotonic() + seconds
    while left:
        if time.monotonic() > end:
            raise Broken(f"{len(left)} processes did not end within {seconds:g} s")
        for fd, _ in poller.poll(100):
            poller.unregister(fd)
            left.discard(fd)
    return now_ns()


@dataclass
class Census:
    """Every agent that ever spoke in one visit to a manager; nothing of it outlives the visit."""

    host_pids: Callable[[list[Stamp]], list[int | None]]
    agents: list[Process] = field(default_factory=list)

    def take(self, stamps: list[Stamp]) -> None:
        for stamp, pid in zip(stamps, self.host_pids(stamps)):
            try:
                if pid is not None:
                    self.agents.append(Process(stamp.name, pid))
            except ProcessLookupError:
                pass  # It has ended already.

    def alive(self) -> list[Process]:
        return [agent for agent in self.agents if agent.is_alive()]

    def latest(self) -> dict[str, Process]:
        """By name; of two of the same name, the one that started last."""
        return {agent.name: agent for agent in self.agents if agent.is_alive()}

    def end(self) -> None:
        for agent in self.alive():
            agent.kill()
        wait_for_ends(self.agents)
        for agent in self.agents:
            agent.close()
        self.agents.clear()


@dataclass(frozen=True)
class Memory:
    """Resident and proportional set size in bytes."""

    rss: int
    pss: int


def memory_of(pid: int) -> Memory:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    value = {key: int(kib) * 1024 for key, kib in re.findall(r"^(Rss|Pss):\s+(\d+) kB$", text, re.M)}
    return Memory(value["Rss"], value["Pss"])


def cpu_seconds(pid: int) -> float:
    """User and system time since the start of the process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def command_line_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return []
        raise


def pids_in_namespace(init: int) -> dict[int, int]:
    """From a pid inside the pid namespace of `init` to the pid outside."""
    wanted = os.readlink(f"/proc/{init}/ns/pid")
    found = {}
    for pid in all_pids():
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") == wanted:
                status = Path(f"/proc/{pid}/status").read_text()
                found[int(re.search(r"^NSpid:.*?(\d+)$", status, re.M)[1])] = pid
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # Ended while we looked, or none of ours.
    return found
