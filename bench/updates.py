#!/usr/bin/env python3
"""100 updates of a service under a constant load, 30 of them bad: requests lost, and how fast the bad ones are reverted.

The service runs in two instances that share a held socket (`served.c`); `load.c` asks it, on a new connection for each
request. A bad version crashes at its start, is never ready, or falls over after it was ready. Time to revert: from the
moment at which the deployment says that it goes back, to its end. Needs Linux, Python 3.11, a C compiler and a built
`alicia`. Prints one JSON object; exit code 1 when a request was lost or a bad version stayed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANNERS = ("crash", "never-ready", "ends-soon")
# How long one deployment may take before the run is called broken.
DEADLINE_S = 120.0
LOOK_EVERY_S = 0.005


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def build(source: str, directory: Path) -> Path:
    program = directory / source.removesuffix(".c")
    command = ["cc", "-O2", "-pthread", "-o", str(program), str(HERE / source)]
    subprocess.run(command, check=True)
    return program


def fleet(program: Path, port: int, version: int, manner: str) -> str:
    return f"""\
services:
  web:
    command: ['{program}', '{version}', {manner}]
    instances: 2
    ports: {{http: {{number: {port}, held: true}}, admin: auto}}
    readiness: {{http: {{path: /}}}}
    update: {{min_healthy: 500ms, deadline: 1s}}
"""


class Api:
    """The host's REST, over one connection."""

    def __init__(self, data: Path) -> None:
        host = json.loads((data / "host.json").read_text())
        self._key = (data / "admin.key").read_text().strip()
        self._connection = http.client.HTTPConnection(host["api"].removeprefix("http://"), timeout=30)

    def ask(self, method: str, path: str, body: object = None) -> dict:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, headers)
        answer = self._connection.getresponse()
        document = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {document}")
        return document


def deploy(api: Api, text: str) -> tuple[dict, float | None]:
    """Deploys, and gives the deployment at its end and the seconds from the turn to the end."""
    number = api.ask("POST", "/api/orchestrator/deploy", {"file": text})["deployment"]["number"]
    turned = None
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        deployment = api.ask("GET", f"/api/orchestrator/deployments/{number}")
        detail = deployment["services"]["web"]["detail"]
        if turned is None and detail.startswith("it goes back"):
            turned = time.monotonic()
        if deployment["state"] != "under-way":
            took = None if deployment["state"] == "done" else time.monotonic() - (turned or time.monotonic())
            return deployment, took
        time.sleep(LOOK_EVERY_S)
    raise SystemExit(f"deployment {number} does not come to an end: {deployment}")


def run(arguments: argparse.Namespace, directory: Path) -> dict:
    program, loader = build("served.c", directory), build("load.c", directory)
    port, data = free_port(), directory / "data"
    (directory / "alicia.yaml").write_text(fleet(program, port, 0, "good"))
    settings = ["--data", str(data), "--set", "http.listen=127.0.0.1:0", "--set", "broker.listen=127.0.0.1:0"]
    alicia = [str(arguments.alicia.resolve()), *settings]
    environment = {**os.environ, "HOME": str(directory)}
    subprocess.run([*alicia, "up", "-d"], cwd=directory, env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        api = Api(data)
        command = [str(loader), str(port), str(arguments.rate), str(arguments.threads)]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            choose = random.Random(arguments.seed)
            bad = set(choose.sample(range(1, arguments.updates + 1), arguments.bad))
            wrong, good_s, revert_s = [], [], []
            for version in range(1, arguments.updates + 1):
                manner = choose.choice(MANNERS) if version in bad else "good"
                began = time.monotonic()
                deployment, took = deploy(api, fleet(program, port, version, manner))
                expected = "done" if manner == "good" else "reverted"
                if deployment["state"] != expected:
                    wrong.append(f"{version} ({manner}): {deployment['state']}: {deployment['detail']}")
                elif took is None:
                    good_s.append(time.monotonic() - began)
                else:
                    revert_s.append(took)
        finally:
            load.send_signal(signal.SIGTERM)
            told = json.loads(load.communicate(timeout=60)[0])
        return {
            "updates": arguments.updates,
            "bad": arguments.bad,
            "rate": arguments.rate,
            **told,
            "good_update_s": {"p50": statistics.median(good_s), "max": max(good_s)} if good_s else None,
            "revert_s": {"p50": statistics.median(revert_s), "max": max(revert_s)} if revert_s else None,
            "wrong": wrong,
        }
    finally:
        subprocess.run([*alicia, "down"], cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE.parent / "target/release/alicia"
    parser.add_argument("--alicia", type=Path, default=default, help="the program")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--bad", type=int, default=30)
    parser.add_argument("--rate", type=float, default=2000, help="requests a second")
    parser.add_argument("--threads", type=int, default=16, help="clients")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = run(arguments, Path(directory))
    print(json.dumps(result, indent=2))
    return 1 if result["failed"] or result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
