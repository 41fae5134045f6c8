#!/usr/bin/env python3
"""From the death of a service to the alert on the bus, as another program hears it.

    python3 bench/alerts.py [--alicia target/release/alicia] [--rounds 100]

Starts a house of its own on free ports, listens to its bus as an MQTT client with the admin key, and measures in rounds:
- killed: SIGKILL of a service until the alert `restarted` arrives;
- check:  a service closes its port (its process lives on) until `check_failed` arrives; checked every second, fall 1.

Needs Python 3.11 and Debian's python3-paho-mqtt. A debug build of Alicia is named in the output, and its figures with it.
"""

import argparse
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import time

import paho.mqtt.client as mqtt

SERVICES = 10
PATIENCE_S = 60

# Listens on its port; SIGUSR1 closes the port, SIGUSR2 opens it again.
SERVED = """
import os, signal, socket
port = int(os.environ["PORT"])
held = []
def listen(*_):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port)); s.listen(64); held.append(s)
def close(*_):
    while held: held.pop().close()
signal.signal(signal.SIGUSR1, close); signal.signal(signal.SIGUSR2, listen)
listen()
while True: signal.pause()
"""


def document(directory: pathlib.Path) -> dict:
    served = {
        "command": [sys.executable, "-u", "-c", SERVED],
        "ports": {"http": "auto"},
        "readiness": {"tcp": {}},
        "start_limit": {"starts": 0},
        "back_off": {"initial": "0s"},
        "checks": {"port": {"tcp": {}, "interval": "1s", "fall": 1}},
    }
    return {
        "name": "alerts",
        "data": str(directory / "data"),
        "http": {"listen": "127.0.0.1:0"},
        "broker": {"listen": "127.0.0.1:0"},
        "health": {"stable_after": "1s", "flapping": {"begin": 0}},
        "services": {f"s{n}": served for n in range(SERVICES)},
    }


class House:
    def __init__(self, program: str, directory: pathlib.Path):
        self.program, self.directory = program, directory
        self.file = directory / "alicia.yaml"
        self.file.write_text(json.dumps(document(directory)))
        self.run("up", "-d")
        self.host = json.loads((directory / "data" / "host.json").read_text())
        self.key = (directory / "data" / "admin.key").read_text().strip()

    def run(self, *arguments: str) -> str:
        command = [self.program, "--file", str(self.file), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def pids(self) -> dict:
        rows = json.loads(self.run("ps", "--json"))
        return {row["service"]: row["pid"] for row in rows}


class Ear:
    """Hears alerts, with the moment in which each arrived."""

    def __init__(self, house: House):
        self.heard = queue.Queue()
        new = getattr(mqtt, "CallbackAPIVersion", None)
        self.client = mqtt.Client(new.VERSION2) if new else mqtt.Client()
        self.client.username_pw_set("admin", house.key)
        self.client.on_message = lambda _c, _u, message: self.heard.put((time.monotonic(), message.payload))
        subscribed = queue.Queue()
        self.client.on_connect = lambda client, *_: client.subscribe("alicia/system/health/monitor/alerts", 1)
        self.client.on_subscribe = lambda *_: subscribed.put(True)
        host, port = house.host["bus"].removeprefix("mqtt://").rsplit(":", 1)
        self.client.connect(host, int(port))
        self.client.loop_start()
        subscribed.get(timeout=PATIENCE_S)

    def wait(self, service: str, rule: str, state: str) -> float:
        end = time.monotonic() + PATIENCE_S
        while True:
            at, payload = self.heard.get(timeout=max(0.001, end - time.monotonic()))
            alert = json.loads(payload)["payload"]
            if (alert["service"], alert["rule"], alert["state"]) == (service, rule, state):
                return at


def percentiles(seconds: list) -> str:
    ordered = sorted(seconds)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3
    return f"p50 {at(0.5):.1f} ms, p90 {at(0.9):.1f} ms, p99 {at(0.99):.1f} ms, max {ordered[-1] * 1e3:.1f} ms"


def settled(house: House, before: dict, service: str) -> dict:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        rows = {row["service"]: row for row in json.loads(house.run("ps", "--json"))}
        row = rows[service]
        if row["state"] == "running" and row["pid"] and row["pid"] != before.get(service):
            return {name: row["pid"] for name, row in rows.items()}
        time.sleep(0.05)
    raise TimeoutError(f"{service} does not run again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alicia", default="target/release/alicia")
    parser.add_argument("--rounds", type=int, default=100)
    asked = parser.parse_args()
    program = str(pathlib.Path(asked.alicia).resolve())
    size = os.path.getsize(program) >> 20
    print(f"{program}, {size} MiB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {SERVICES} services")
    with tempfile.TemporaryDirectory() as directory:
        house = House(program, pathlib.Path(directory))
        try:
            ear = Ear(house)
            pids = house.pids()
            killed, check = [], []
            for n in range(asked.rounds):
                service = f"s{n % SERVICES}"
                began = time.monotonic()
                os.kill(pids[service], signal.SIGKILL)
                killed.append(ear.wait(service, "restarted", "firing") - began)
                pids = settled(house, pids, service)
                ear.wait(service, "restarted", "resolved")
            print(f"killed until told: {percentiles(killed)} ({len(killed)} rounds)", flush=True)
            for n in range(asked.rounds):
                service = f"s{n % SERVICES}"
                # In any phase of the check.
                time.sleep((n * 0.37) % 1)
                began = time.monotonic()
                os.kill(pids[service], signal.SIGUSR1)
                check.append(ear.wait(service, "check_failed", "firing") - began)
                os.kill(pids[service], signal.SIGUSR2)
                ear.wait(service, "check_failed", "resolved")
            print(f"port closed until told, checked every second: {percentiles(check)} ({len(check)} rounds)")
        finally:
            house.run("down")


if __name__ == "__main__":
    main()
