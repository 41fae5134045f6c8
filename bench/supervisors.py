"""Alicia beside other supervisors, in one run, as ratios. See README.md in this folder.

    python3 bench/supervisors.py            builds nothing of Alicia: needs target/release/alicia
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import peers
import report
import scenarios
from managers import Alicia, Floor, Manager
from peers import Pm2, Supervisord, Systemd
from processes import Broken

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "target/bench-peers"
KINDS: list[type[Manager]] = [Alicia, Systemd, Pm2, Supervisord, Floor]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures Alicia beside other supervisors.")
    parser.add_argument("--alicia", type=Path, default=ROOT / "target/release/alicia", help="the binary to measure")
    parser.add_argument("--rounds", type=int, default=5, help="how often each manager is visited")
    parser.add_argument("--kills", type=int, default=20, help="single kills in each round")
    parser.add_argument("--agents", type=int, default=50, help="services of the fleet")
    parser.add_argument("--many", type=int, default=3, help="rounds with 1,000 services (Alicia only)")
    parser.add_argument("--only", action="append", help="this manager (and the floor); may be given several times")
    parser.add_argument("--realtime", action="store_true", help="everything in the real-time class, for a busy machine")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--directory", type=Path, help="where everything is kept while it runs; /dev/shm: no disk")
    parser.add_argument("--document", type=Path, help="replace the tables in this Markdown file")
    parser.add_argument("--place", default="disk", help="which tables of the file: disk, memory")
    return parser.parse_args()


def build_programs() -> Path:
    """The agent and the floor, static."""
    folder = ROOT / "target/bench-programs"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("agent", "floor"):
        source = ROOT / f"bench/{name}.c"
        subprocess.check_call(["cc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", folder / name, source])
    return folder


def present(only: list[str] | None) -> tuple[list[type[Manager]], dict[str, str]]:
    """The managers that can run here, with their versions; of the others it is said why not."""
    kinds, versions = [], {}
    for kind in KINDS:
        if only and kind is not Floor and kind.name not in only:
            continue
        try:
            versions[kind.name] = kind.version()
            kinds.append(kind)
        except (OSError, subprocess.CalledProcessError, Broken) as error:
            versions[kind.name] = f"not measured: {error}"
    return kinds, versions


def one_round(kinds: list[type[Manager]], programs: Path, results: scenarios.Results, options: argparse.Namespace) -> None:
    """Every scenario with every manager, one manager after the other."""
    for kind in kinds:
        say(f"  {kind.name}")
        scenarios.main_visit(kind, programs, options.agents, options.kills, results)
        if kind is not Floor:
            scenarios.hostile_visit(kind, programs, results)
        if kind.survivable:
            scenarios.manager_death_visit(kind, programs, options.agents, results)
        if kind is Alicia:
            scenarios.keeper_death_visit(programs, options.agents, results)
            scenarios.empty_visit(programs, results)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    options = arguments()
    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if options.directory:
        tempfile.tempdir = str(options.directory)
    peers.install(PEERS)
    Alicia.program = options.alicia.resolve()
    programs = build_programs()
    kinds, versions = present(options.only)
    conditions = report.Conditions.here(versions, options)
    results = scenarios.Results()
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        one_round(kinds, programs, results, options)
    for number in range(options.many if Alicia in kinds else 0):
        say(f"1,000 services, {number + 1} of {options.many}")
        scenarios.many_visit(programs, results)
    text = report.markdown(results, conditions)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(results.samples, indent=1))
    if options.document:
        report.replace_in(options.document, options.place, text)


if __name__ == "__main__":
    main()
