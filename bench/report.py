"""The samples as Markdown."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from managers import Alicia, Floor
from scenarios import Results

MIB = 1024 * 1024
KIB = 1024
NONE = "–"


@dataclass(frozen=True)
class Conditions:
    """Where, when and how it ran."""

    versions: dict[str, str]
    date: str
    machine: str
    load: str
    command: str
    agents: int

    @classmethod
    def here(cls, versions: dict[str, str], options: argparse.Namespace) -> Conditions:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
        return cls(
            versions,
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}",
            " / ".join(f"{load:.1f}" for load in os.getloadavg()),
            "python3 bench/supervisors.py " + " ".join(sys.argv[1:]),
            options.agents,
        )


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that is not below `part` of all."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    """Median, and in brackets the smallest and the largest."""
    if not values:
        return NONE
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def tail(values: Sequence[float]) -> str:
    if not values:
        return NONE
    return " / ".join(number(value) for value in (statistics.median(values), percentile(values, 0.99), max(values)))


def fate(samples: dict[str, list[float]]) -> str:
    """Kept, doubled and replaced agents, the sum of all rounds."""
    if "kept" not in samples:
        return NONE
    return " / ".join(number(sum(samples[what])) for what in ("kept", "doubled", "replaced"))


def left(samples: dict[str, list[float]]) -> str:
    if "left group" not in samples:
        return NONE
    return " / ".join(number(statistics.mean(samples[f"left {which}"])) for which in ("group", "session"))


def bytes_of(samples: dict[str, list[float]], figure: str, unit: int) -> str:
    """RSS / PSS."""
    if f"manager rss {figure}" not in samples:
        return NONE
    return " / ".join(number(statistics.median(samples[f"manager {kind} {figure}"]) / unit) for kind in ("rss", "pss"))


def rows(agents: int) -> list[tuple[str, Callable[[dict[str, list[float]]], str]]]:
    return [
        (f"start of {agents}, the manager's own start included (ms)", lambda s: spread(s.get("start", []))),
        ("SIGKILL to the successor's first instruction, p50 / p99 / max (ms)", lambda s: tail(s.get("kill", []))),
        (f"{agents} killed at once, all back (ms)", lambda s: spread(s.get("all killed", []))),
        (f"stop of {agents}, command included (ms)", lambda s: spread(s.get("stop", []))),
        ("hostile descendants left of each service: same group / own session", left),
        ("manager killed, started again: kept / doubled / replaced", fate),
        (f"manager with {agents} services, RSS / PSS (MiB)", lambda s: bytes_of(s, f"with {agents}", MIB)),
    ]


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def side_by_side(results: Results, agents: int) -> str:
    names = list(results.samples)
    body = [[title, *(cell(results.samples[name]) for name in names)] for title, cell in rows(agents)]
    return table(["", *names], body)


def ratios(results: Results, agents: int) -> str:
    """Alicia's median over that of each other."""
    figures = [
        (f"start of {agents}", "start"),
        ("SIGKILL to successor", "kill"),
        (f"{agents} killed at once", "all killed"),
        (f"stop of {agents}", "stop"),
    ]
    others = [name for name in results.samples if name != Alicia.name]

    def cell(figure: str, other: str) -> str:
        ours, theirs = results.samples[Alicia.name].get(figure), results.samples[other].get(figure)
        return f"× {number(statistics.median(ours) / statistics.median(theirs))}" if ours and theirs else NONE

    body = [[title, *(cell(figure, other) for other in others)] for title, figure in figures]
    return table(["Alicia's median over that of", *others], body)


def alone(results: Results, agents: int) -> str:
    """What only Alicia is asked."""
    samples = results.samples[Alicia.name]

    def memory(role: str, services: int) -> list[str]:
        found = [samples.get(f"{role} {kind} with {services}") for kind in ("rss", "pss")]
        value = " / ".join(number(statistics.median(values) / MIB) for values in found) if all(found) else NONE
        return [f"{role} with {services:,} services, RSS / PSS (MiB)".replace("manager", "host"), value]

    def each() -> str:
        few, many = samples.get("manager pss with 0"), samples.get("manager pss with 1000")
        if not few or not many:
            return NONE
        return number((statistics.median(many) - statistics.median(few)) / 1000 / KIB)

    body = [
        ["start of 1,000, own start included (ms)", spread(samples.get("many start", []))],
        ["stop of 1,000, command included (ms)", spread(samples.get("many stop", []))],
        ["API answers after the first start (ms)", spread(samples.get("api at first", []))],
        ["API answers after SIGKILL of the host and a new `up` (ms)", spread(samples.get("api back", []))],
        [f"keeper killed: {agents} replaced (ms)", spread(samples.get("keeper death", []))],
        *(memory(role, services) for role in ("keeper", "manager") for services in (0, agents, 1000)),
        ["host, for each of 1,000 services, PSS (KiB)", each()],
        ["processor time idle with 1,000, keeper (% of a core)", spread(samples.get("keeper idle", []))],
        ["processor time idle with 1,000, host (% of a core)", spread(samples.get("manager idle", []))],
    ]
    return table(["Alicia alone", ""], body)


def markdown(results: Results, conditions: Conditions) -> str:
    samples = results.samples.get(Alicia.name) or results.samples[Floor.name]
    versions = "; ".join(conditions.versions.values())
    counts = f"{len(samples['start'])} rounds, {len(samples['kill'])} single kills"
    parts = [
        f"{conditions.date}; {conditions.machine}; load at the start {conditions.load}.",
        f"{counts}, interleaved. {versions}.",
        f"```\n{conditions.command}\n```",
        side_by_side(results, conditions.agents),
    ]
    if Alicia.name in results.samples:
        parts += [ratios(results, conditions.agents), alone(results, conditions.agents)]
    return "\n\n".join(parts)


def replace_in(document: Path, place: str, text: str) -> None:
    """Puts the text between the two marks of the place."""
    begin, end = (f"<!-- supervisors.py {place}: {which} -->" for which in ("begin", "end"))
    old = document.read_text()
    if begin not in old or end not in old:
        raise SystemExit(f"{document}: has no place for the tables, between {begin} and {end}")
    document.write_text(re.sub(f"(?s){begin}.*{end}", lambda _: f"{begin}\n{text}\n{end}", old))
