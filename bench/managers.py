"""A manager: its configuration, its directory, its commands. The floor and Alicia; the others are in peers.py."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from processes import Stamp, all_pids, command_line_of

# How long a service may take to end before it is killed; the same for every manager.
GRACE_S = 3


@dataclass(frozen=True)
class Fleet:
    """What a manager shall run: agents a0 … in one directory."""

    directory: Path
    agent: Path
    fifo: Path
    count: int
    hostile: bool = False

    def names(self) -> list[str]:
        return [f"a{number}" for number in range(self.count)]

    def all_names(self) -> list[str]:
        """The descendants of hostile agents too, as agent.c calls them."""
        descendants = [f"{name}/{which}" for name in self.names() for which in ("group", "session")]
        return self.names() + (descendants if self.hostile else [])

    def arguments(self, name: str) -> list[str]:
        return [str(self.agent), name, str(self.fifo)] + (["hostile"] if self.hostile else [])


class Manager(ABC):
    """One manager with one fleet: from `launch` to `end`."""

    name: str
    # Whether it is a program that may be killed alone and started again.
    survivable = True

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.output = (fleet.directory / "output").open("ab")
        self.child: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Its name and version, or an exception when it is not there."""

    @abstractmethod
    def prepare(self) -> None:
        """Writes its configuration."""

    @abstractmethod
    def launch(self) -> None:
        """Starts the manager and, by it, the fleet. Returns at once."""

    @abstractmethod
    def stop_command(self) -> list[str]:
        """What an operator types to stop all services."""

    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Its processes by role; the one called `manager` is killed in the scenario of its death."""

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.fleet.directory), "LANG": "C.UTF-8"}

    def spawn(self, command: list[str], **more: object) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.output, "stderr": self.output}
        where = {"cwd": self.fleet.directory, "env": self.environment()}
        return subprocess.Popen(command, **{**where, **streams, **more})

    def stop(self) -> subprocess.Popen[bytes]:
        return self.spawn(self.stop_command())

    def host_pids(self, stamps: list[Stamp]) -> list[int | None]:
        """What the agents' pids are here; None for one that is gone."""
        return [stamp.pid for stamp in stamps]

    def api_answers(self) -> bool:
        """Whether it can be asked what runs. Only asked of those that have an API over HTTP."""
        raise NotImplementedError

    def end(self) -> None:
        """Ends the manager itself; what its fleet left is ended by the census."""
        for pid in self.pids().values():
            kill(pid)
        self.reap()
        self.output.close()

    def reap(self) -> None:
        if self.child is not None:
            self.child.wait(60)


def kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass  # It has ended.


class Floor(Manager):
    """floor.c: posix_spawn and waitpid, nothing else."""

    name = "bare spawn"
    survivable = False

    @classmethod
    def version(cls) -> str:
        return "bare spawn (`bench/floor.c`)"

    def prepare(self) -> None:
        pass

    def launch(self) -> None:
        program = self.fleet.agent.with_name("floor")
        self.child = self.spawn([str(program), str(self.fleet.count), str(self.fleet.agent), str(self.fleet.fifo)])

    def stop_command(self) -> list[str]:
        return ["kill", "-TERM", str(self.child.pid)]

    def pids(self) -> dict[str, int]:
        return {"manager": self.child.pid} if self.child and self.child.poll() is None else {}


class Alicia(Manager):
    """Its two processes: the host, which is `manager` here, and the keeper."""

    name = "Alicia"
    program = Path()

    @classmethod
    def version(cls) -> str:
        return subprocess.check_output([cls.program, "--version"], text=True).strip()

    def prepare(self) -> None:
        services = {
            name: {
                "command": self.fleet.arguments(name),
                "restart": "always",
                "back_off": {"initial": "0s", "max": "0s", "factor": 1, "jitter": 0, "reset_after": "0s"},
                "start_limit": {"starts": 0},
                "stop": {"grace": f"{GRACE_S}s"},
            }
            for name in self.fleet.names()
        }
        # JSON is YAML.
        (self.fleet.directory / "alicia.yaml").write_text(json.dumps({"name": "bench", "services": services}, indent=1))

    def command(self, *arguments: str) -> list[str]:
        where = ["--file", str(self.fleet.directory / "alicia.yaml"), "--data", str(self.fleet.directory / "data")]
        return [str(self.program), *arguments, *where]

    def launch(self) -> None:
        ports = ["--set", "http.listen=127.0.0.1:0", "--set", "broker.listen=127.0.0.1:0"]
        self.child = self.spawn(self.command("up", "--no-table") + ports)

    def stop_command(self) -> list[str]:
        return self.command("stop")

    def pids(self) -> dict[str, int]:
        found = {}
        if self.child and self.child.poll() is None:
            found["manager"] = self.child.pid
        directory = str(self.fleet.directory / "data")
        for pid in all_pids():
            words = command_line_of(pid)
            if "keeper" in words[1:2] and any(word.startswith(directory) for word in words):
                found["keeper"] = pid
        return found

    def api_answers(self) -> bool:
        try:
            host = json.loads((self.fleet.directory / "data/host.json").read_text())
            if host["pid"] != self.child.pid:
                return False
            key = (self.fleet.directory / "data/admin.key").read_text().strip()
            url = f"{host['api']}/api/orchestrator/status"
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status == 200
        except (FileNotFoundError, urllib.error.URLError, ConnectionError, json.JSONDecodeError):
            return False

    def end(self) -> None:
        if "manager" in self.pids():
            self.spawn(self.command("down")).wait(60)
        super().end()
