#!/usr/bin/env python3
"""One hostile agent, and what the others notice of it.

A fleet of well-behaved agents (`steady.c`) and one that is started in four manners (`rogue.py`): a fork bomb, 10 GB of memory,
a flood of its log, a flood of messages. It has limits, like each agent that is not trusted. Quiet and hostile spells take
turns; in each, three things are asked all the time, from outside: an agent over HTTP, a message over the bus to oneself, and
the state of the fleet over REST. Told: the 50th and 99th percentile of each, and the ratio of hostile to quiet. Exit code 1
when a 99th percentile is more than twice as long.

Needs Linux, Python 3.11, a C compiler and a built `alicia`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rogue import mqtt

HERE = Path(__file__).resolve().parent
AGENTS = 8
MANNERS = ("processes", "memory", "log", "messages")
ASKED_EVERY_S = 0.005
# Between the start of a hostile agent and the measurement: it is at full tilt by then.
RISE_S = 1.0
RATIO_MAX = 2.0
TOPIC = b"alicia/bench/echo"

Times = dict[str, list[float]]


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def fleet(steady: Path, ports: list[int], limits: str) -> str:
    agents = [f"  agent-{number}:\n    command: ['{steady}', '{port}']\n" for number, port in enumerate(ports)]
    rogues = [
        f"  rogue-{manner}:\n    command: ['{sys.executable}', '{HERE / 'rogue.py'}', {manner}]\n"
        f"    profiles: [rogue]\n    limits: {limits}\n    allow: {{publish: [rogue-{manner}/flood]}}\n    stop: {{grace: 1s}}\n"
        for manner in MANNERS
    ]
    return "services:\n" + "".join(agents + rogues)


class Fleet:
    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        steady = directory / "steady"
        subprocess.run(["cc", "-O2", "-o", str(steady), str(HERE / "steady.c")], check=True)
        self.ports = free_ports(AGENTS)
        (directory / "alicia.yaml").write_text(fleet(steady, self.ports, arguments.limits))
        self.data = directory / "data"
        settings = ["--data", str(self.data), "--set", "http.listen=127.0.0.1:0", "--set", "broker.listen=127.0.0.1:0"]
        self.words = [str(arguments.alicia.resolve()), *settings]
        self.place = {"cwd": directory, "env": {**os.environ, "HOME": str(directory)}}
        subprocess.run([*self.words, "up", "-d"], check=True, stdout=subprocess.DEVNULL, **self.place)
        host = json.loads((self.data / "host.json").read_text())
        self.key = (self.data / "admin.key").read_text().strip()
        self.api = host["api"].removeprefix("http://")
        self.bus = int(host["bus"].rsplit(":", 1)[1])

    def do(self, *words: str) -> str:
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, check=False, **self.place)
        return done.stdout


def http_asker(ports: list[int]) -> Callable[[], None]:
    turn = 0

    def ask() -> None:
        nonlocal turn
        turn += 1
        with socket.create_connection(("127.0.0.1", ports[turn % len(ports)]), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if b" 200 " not in connection.recv(4096):
                raise SystemExit("an agent does not answer with 200")

    return ask


def bus_asker(port: int, key: str) -> Callable[[], None]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(mqtt.connect(mqtt.V4, b"bench-echo", b"admin", key.encode(), keep_alive=0))
    connection.recv(4)
    connection.sendall(mqtt.subscribe(mqtt.V4, [TOPIC]))
    connection.recv(5)
    message = mqtt.publish(mqtt.V4, TOPIC, b"x" * 64)

    def ask() -> None:
        connection.sendall(message)
        missing = len(message)
        while missing > 0:
            got = len(connection.recv(missing))
            if not got:
                raise SystemExit("the bus has closed the connection")
            missing -= got

    return ask


def rest_asker(api: str, key: str) -> Callable[[], None]:
    connection = http.client.HTTPConnection(api, timeout=10)

    def ask() -> None:
        connection.request("GET", "/api/orchestrator/services/agent-0", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"REST: {answer.status}")

    return ask


def keep_asking(make: Callable[[], Callable[[], None]], results: multiprocessing.SimpleQueue, seconds: float) -> None:
    """In a process of its own: asks at a steady pace, and puts the list of seconds that each answer took."""
    ask, took = make(), []
    ask()
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        ask()
        took.append(time.monotonic() - began)
        time.sleep(ASKED_EVERY_S)
    results.put(took)


def spell(house: Fleet, seconds: float) -> Times:
    askers = {
        "agent": lambda: http_asker(house.ports),
        "bus": lambda: bus_asker(house.bus, house.key),
        "REST": lambda: rest_asker(house.api, house.key),
    }
    forks = multiprocessing.get_context("fork")
    queues = {name: forks.SimpleQueue() for name in askers}
    workers = [forks.Process(target=keep_asking, args=(make, queues[name], seconds)) for name, make in askers.items()]
    for worker in workers:
        worker.start()
    times = {name: queue.get() for name, queue in queues.items()}
    for worker in workers:
        worker.join()
    return times


def percentile(times: list[float], share: float) -> float:
    return statistics.quantiles(times, n=1000, method="inclusive")[round(share * 1000) - 1]


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, tuple[Times, Times]]:
    house = Fleet(arguments, directory)
    try:
        spell(house, 1.0)
        found: dict[str, tuple[Times, Times]] = {}
        for _ in range(arguments.rounds):
            for manner in arguments.manner or MANNERS:
                quiet, hostile = found.setdefault(manner, ({}, {}))
                for times, took in spell(house, arguments.seconds).items():
                    quiet.setdefault(times, []).extend(took)
                house.do("start", "--no-wait", f"rogue-{manner}")
                time.sleep(RISE_S)
                for times, took in spell(house, arguments.seconds).items():
                    hostile.setdefault(times, []).extend(took)
                house.do("stop", f"rogue-{manner}")
        kept = [row for row in json.loads(house.do("ps", "--json")) if row["service"].startswith("agent-")]
        if any(row["state"] != "running" or row["restarts"] for row in kept):
            raise SystemExit(f"an agent did not live through it: {kept}")
        return found
    finally:
        house.do("down")


def report(found: dict[str, tuple[Times, Times]]) -> bool:
    ok = True
    print("| hostile agent | asked | quiet p50 / p99 (ms) | hostile p50 / p99 (ms) | ratio of p99 |\n|---|---|---|---|---|")
    for manner, (quiet, hostile) in found.items():
        for name in quiet:
            cells = [[percentile(times[name], share) * 1000 for share in (0.5, 0.99)] for times in (quiet, hostile)]
            ratio = cells[1][1] / cells[0][1]
            ok &= ratio <= RATIO_MAX
            shown = [" / ".join(f"{value:.2f}" for value in cell) for cell in cells]
            print(f"| {manner} | {name} | {shown[0]} | {shown[1]} | × {ratio:.2f} |")
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alicia", type=Path, default=HERE.parent / "target/release/alicia", help="the program")
    parser.add_argument("--seconds", type=float, default=5, help="length of a spell")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--manner", action="append", choices=MANNERS, help="only this one; may be given several times")
    parser.add_argument("--limits", default="{memory: 256MiB, processes: 64, cpu: 0.25}", help="the limits of the hostile one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alicia-hostile-") as directory:
        found = run(arguments, Path(directory))
    return 0 if report(found) else 1


if __name__ == "__main__":
    sys.exit(main())
