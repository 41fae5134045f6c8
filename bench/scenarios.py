"""What is measured: one visit starts a manager with a fleet, looks, and leaves nothing behind."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from managers import Alicia, Fleet, Manager
from processes import Census, Process, Stamp, Stamps, cpu_seconds, memory_of, now_ns, wait_for_ends, wait_until

# Between the scenarios. supervisord calls a service that ended within `startsecs` (1 s) a failed start.
SETTLE_S = 1.5
# Between one successor and the next kill: the manager writes its records in peace.
PAUSE_S = 0.02
# When descendants are counted: this long after all services were told to stop, which is past the grace period of 3 s,
# and not before the command has returned.
LEFT_AFTER_S = 4.5
# How long after the manager is started again its doubles may appear.
DOUBLES_S = 5.0
HOSTILE_AGENTS = 10
MANY_AGENTS = 1000
IDLE_S = 10.0


@dataclass
class Results:
    """Samples by manager and figure."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, manager: type[Manager], figure: str, *values: float) -> None:
        self.samples[manager.name][figure].extend(values)


@dataclass
class Visit:
    """A manager that runs a fleet."""

    manager: Manager
    stamps: Stamps
    census: Census
    launched_ns: int
    first: list[Stamp]

    def start_ms(self) -> float:
        return ms(max(stamp.ns for stamp in self.first) - self.launched_ns)

    def agents(self) -> list[Process]:
        """The living agents that the manager itself started, without their descendants."""
        return [agent for agent in self.census.alive() if "/" not in agent.name]


def ms(ns: int) -> float:
    return ns / 1e6


@contextmanager
def visit(kind: type[Manager], programs: Path, count: int, *, hostile: bool = False) -> Iterator[Visit]:
    """Starts a manager with its fleet in a new directory, waits for every agent, and ends all of it."""
    with ExitStack() as ending:  # The last that was begun ends first, whatever fails.
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        ending.callback(shutil.rmtree, directory)
        stamps = Stamps(directory / "stamps")
        ending.callback(stamps.close)
        fleet = Fleet(directory, programs / "agent", stamps.path, count, hostile)
        manager = kind(fleet)
        census = Census(manager.host_pids)
        ending.callback(census.end)
        ending.callback(lambda: census.take(stamps.read(0)))
        ending.callback(manager.end)
        manager.prepare()
        launched_ns = now_ns()
        manager.launch()
        first = stamps.wait_for(fleet.all_names())
        census.take(first)
        yield Visit(manager, stamps, census, launched_ns, first)


def main_visit(kind: type[Manager], programs: Path, agents: int, kills: int, results: Results) -> None:
    """Start, memory, single kills, all killed at once, stop."""
    with visit(kind, programs, agents) as it:
        results.add(kind, "start", it.start_ms())
        time.sleep(SETTLE_S)
        add_memory(it.manager, f"with {agents}", results)
        results.add(kind, "kill", *single_kills(it, kills))
        time.sleep(SETTLE_S)
        results.add(kind, "all killed", all_killed(it))
        time.sleep(SETTLE_S)
        results.add(kind, "stop", stop(it))


def add_memory(manager: Manager, when: str, results: Results) -> None:
    for role, pid in manager.pids().items():
        memory = memory_of(pid)
        results.add(type(manager), f"{role} rss {when}", memory.rss)
        results.add(type(manager), f"{role} pss {when}", memory.pss)


def single_kills(it: Visit, kills: int) -> list[float]:
    """From SIGKILL to the first instruction of the successor, one agent after the other."""
    times = []
    names = it.manager.fleet.names()
    for number in range(kills):
        name = names[number % len(names)]
        victim = it.census.latest()[name]
        killed_ns = now_ns()
        victim.kill()
        stamps = it.stamps.wait_for([name])
        times.append(ms(stamps[-1].ns - killed_ns))
        it.census.take(stamps)
        time.sleep(PAUSE_S)
    return times


def all_killed(it: Visit) -> float:
    """From the first SIGKILL of all agents to the first instruction of the last successor."""
    victims = it.agents()
    killed_ns = now_ns()
    for victim in victims:
        victim.kill()
    stamps = it.stamps.wait_for(it.manager.fleet.names())
    it.census.take(stamps)
    return ms(max(stamp.ns for stamp in stamps) - killed_ns)


def stop(it: Visit) -> float:
    """From the stop command, as an operator types it, to the end of the last agent."""
    agents = it.agents()
    asked_ns = now_ns()
    command = it.manager.stop()
    ended_ns = wait_for_ends(agents)
    command.wait(60)
    return ms(ended_ns - asked_ns)


def hostile_visit(kind: type[Manager], programs: Path, results: Results) -> None:
    """How many descendants are alive when every service has been stopped."""
    with visit(kind, programs, HOSTILE_AGENTS, hostile=True) as it:
        time.sleep(SETTLE_S)
        command = it.manager.stop()
        time.sleep(LEFT_AFTER_S)
        command.wait(60)
        left = [process.name.partition("/")[2] for process in it.census.alive()]
        for which in ("group", "session"):
            results.add(kind, f"left {which}", left.count(which) / HOSTILE_AGENTS)


def manager_death_visit(kind: type[Manager], programs: Path, agents: int, results: Results) -> None:
    """The manager is killed and started again by the same command: what became of the agents?"""
    with visit(kind, programs, agents) as it:
        time.sleep(SETTLE_S)
        before = it.agents()
        end_manager(it.manager)
        started_ns = now_ns()
        it.manager.launch()
        if kind is Alicia:
            wait_until(it.manager.api_answers, "the API answers again")
            results.add(kind, "api back", ms(now_ns() - started_ns))
        it.census.take(it.stamps.collect(DOUBLES_S))
        add_fate(kind, before, it, results)


def end_manager(manager: Manager) -> None:
    """Kills it, and waits until it is gone."""
    victim = Process("manager", manager.pids()["manager"])
    victim.kill()
    wait_for_ends([victim])
    victim.close()
    manager.reap()


def add_fate(kind: type[Manager], before: list[Process], it: Visit, results: Results) -> None:
    kept = {agent.name for agent in before if agent.is_alive()}
    fresh = {agent.name for agent in it.agents() if agent not in before}
    results.add(kind, "kept", len(kept - fresh))
    results.add(kind, "doubled", len(kept & fresh))
    results.add(kind, "replaced", len(fresh - kept))


def keeper_death_visit(programs: Path, agents: int, results: Results) -> None:
    """Alicia's keeper is killed: all agents are replaced; how long does that take?"""
    with visit(Alicia, programs, agents) as it:
        time.sleep(SETTLE_S)
        before = it.agents()
        victim = Process("keeper", it.manager.pids()["keeper"])
        killed_ns = now_ns()
        victim.kill()
        stamps = it.stamps.wait_for(it.manager.fleet.names())
        victim.close()
        results.add(Alicia, "keeper death", ms(max(stamp.ns for stamp in stamps) - killed_ns))
        it.census.take(stamps)
        wait_for_ends(before)


def empty_visit(programs: Path, results: Results) -> None:
    """The memory of Alicia without a service, once its API answers."""
    with visit(Alicia, programs, 0) as it:
        wait_until(it.manager.api_answers, "the API answers")
        results.add(Alicia, "api at first", ms(now_ns() - it.launched_ns))
        time.sleep(SETTLE_S)
        add_memory(it.manager, "with 0", results)


def many_visit(programs: Path, results: Results) -> None:
    """Alicia with a thousand agents: start, memory, idle processor time, stop."""
    with visit(Alicia, programs, MANY_AGENTS) as it:
        results.add(Alicia, "many start", it.start_ms())
        time.sleep(3 * SETTLE_S)
        add_memory(it.manager, f"with {MANY_AGENTS}", results)
        pids = it.manager.pids()
        before = {role: cpu_seconds(pid) for role, pid in pids.items()}
        time.sleep(IDLE_S)
        for role, pid in pids.items():
            results.add(Alicia, f"{role} idle", 100 * (cpu_seconds(pid) - before[role]) / IDLE_S)
        results.add(Alicia, "many stop", stop(it))
