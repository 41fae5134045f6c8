"""The managers that are compared, each with its own configuration, its own directory and its own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from processes import Broken, Stamp, all_pids, children_of, command_line_of, pids_in_namespace, wait_until

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


class Supervisord(Manager):
    """supervisord from PyPI. `startsecs=1` is its default; a service killed earlier would be called a failed start."""

    name = "supervisord"
    folder = Path()

    @classmethod
    def version(cls) -> str:
        return "supervisord " + subprocess.check_output([cls.folder / "supervisord", "--version"], text=True).strip()

    def prepare(self) -> None:
        directory = self.fleet.directory
        socket = f"{directory}/s.sock"
        text = f"""[unix_http_server]
file={socket}
[supervisord]
logfile={directory}/supervisord.log
pidfile={directory}/supervisord.pid
childlogdir={directory}
nodaemon=true
silent=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{socket}
"""
        for name in self.fleet.names():
            text += f"""[program:{name}]
command={" ".join(self.fleet.arguments(name))}
autorestart=true
startsecs=1
stopwaitsecs={GRACE_S}
stopasgroup=true
killasgroup=true
"""
        (directory / "supervisord.conf").write_text(text)

    def command(self, program: str, *arguments: str) -> list[str]:
        return [str(self.folder / program), "-c", str(self.fleet.directory / "supervisord.conf"), *arguments]

    def launch(self) -> None:
        self.child = self.spawn(self.command("supervisord"))

    def stop_command(self) -> list[str]:
        return self.command("supervisorctl", "stop", "all")

    def pids(self) -> dict[str, int]:
        return {"manager": self.child.pid} if self.child and self.child.poll() is None else {}


class Pm2(Manager):
    """pm2 from npm, its daemon started by the first command as usual. `vizion` (looking for git) is off in its favour."""

    name = "pm2"
    folder = Path()

    @classmethod
    def version(cls) -> str:
        package = json.loads((cls.folder / "node_modules/pm2/package.json").read_text())
        node = subprocess.check_output(["node", "--version"], text=True).strip()
        return f"pm2 {package['version']} (node {node})"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PM2_HOME": str(self.fleet.directory / "pm2")}

    def prepare(self) -> None:
        apps = [
            {
                "name": name,
                "script": arguments[0],
                "args": arguments[1:],
                "interpreter": "none",
                "exec_mode": "fork",
                "kill_timeout": GRACE_S * 1000,
                "vizion": False,
                "cwd": str(self.fleet.directory),
            }
            for name in self.fleet.names()
            for arguments in [self.fleet.arguments(name)]
        ]
        (self.fleet.directory / "apps.json").write_text(json.dumps({"apps": apps}))

    def command(self, *arguments: str) -> list[str]:
        return ["node", str(self.folder / "node_modules/pm2/bin/pm2"), *arguments]

    def launch(self) -> None:
        self.reap()
        self.child = self.spawn(self.command("start", str(self.fleet.directory / "apps.json")))

    def stop_command(self) -> list[str]:
        return self.command("stop", "all")

    def pids(self) -> dict[str, int]:
        title = str(self.fleet.directory / "pm2")
        for pid in all_pids():
            words = " ".join(command_line_of(pid))
            if words.startswith("PM2 ") and title in words:
                return {"manager": pid}
        return {}


class Systemd(Manager):
    """systemd as PID 1 of its own pid, mount, cgroup, network and host name namespaces, with a private unit folder.

    It cannot be killed alone: the kernel ends a namespace with its PID 1.
    """

    name = "systemd"
    survivable = False
    program = Path("/usr/lib/systemd/systemd")
    cgroups = Path("/sys/fs/cgroup/unified")

    # Waits for a line, so that the making of the namespaces is not counted as systemd's start.
    SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /dev/null /dev/console
mount --bind /etc /etc
mount -o remount,bind,ro /etc
echo ready
read go
exec env -i container=bench PATH="$PATH" SYSTEMD_UNIT_PATH="$1" SYSTEMD_GENERATOR_PATH=/nonexistent \
    SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent "$2" --system --unit=bench.target --show-status=no --log-target=null
"""

    @classmethod
    def version(cls) -> str:
        if os.geteuid() != 0 or not cls.program.exists():
            raise Broken("systemd needs root (for namespaces) and /usr/lib/systemd/systemd")
        return subprocess.check_output([cls.program, "--version"], text=True).split(" (")[0]

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        root = self.cgroups if self.cgroups.is_dir() else Path("/sys/fs/cgroup")
        self.cgroup = root / f"bench-{os.getpid()}-{fleet.directory.name}"
        self.init = 0

    def prepare(self) -> None:
        units = self.fleet.directory / "units"
        units.mkdir()
        (units / "bench.target").write_text(
            "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants=" + " ".join(f"{name}.service" for name in self.fleet.names()) + "\n"
        )
        for name in self.fleet.names():
            (units / f"{name}.service").write_text(
                "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\n"
                f"ExecStart={' '.join(self.fleet.arguments(name))}\nRestart=always\nRestartSec=0\n"
                f"TimeoutStopSec={GRACE_S}\nStandardOutput=append:{self.fleet.directory}/{name}.log\n"
            )
        self.enclose(units)

    def enclose(self, units: Path) -> None:
        """Makes the namespaces and leaves a shell in them that becomes systemd on a line of input."""
        self.cgroup.mkdir()
        ours = (self.cgroup / "cgroup.procs").open("w")

        def enter() -> None:
            ours.write("0")
            ours.flush()

        kinds = ["--pid", "--mount", "--cgroup", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        command = ["unshare", *kinds, "--propagation", "private", "sh", "-c", self.SCRIPT, "sh", str(units), str(self.program)]
        self.child = self.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=enter)
        ours.close()
        if self.child.stdout.readline() != b"ready\n":
            raise Broken("systemd cannot be given namespaces here; see its output file")
        self.init = children_of(self.child.pid)[0]

    def launch(self) -> None:
        self.child.stdin.write(b"go\n")
        self.child.stdin.flush()

    def stop_command(self) -> list[str]:
        inside = ["nsenter", "--target", str(self.init), "--pid", "--mount", "--cgroup", "--"]
        return [*inside, "systemctl", "stop", "a*.service"]

    def pids(self) -> dict[str, int]:
        return {"manager": self.init} if self.init and self.child.poll() is None else {}

    def host_pids(self, stamps: list[Stamp]) -> list[int | None]:
        outside = pids_in_namespace(self.init) if self.init in all_pids() else {}
        return [outside.get(stamp.pid) for stamp in stamps]

    def end(self) -> None:
        super().end()
        if self.child is not None:
            self.child.stdin.close()
            self.child.stdout.close()
        wait_until(self.remove_cgroups, "the cgroups of systemd are empty")

    def remove_cgroups(self) -> bool:
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                return False
        return True


def find_peers(folder: Path) -> None:
    """Where `peers` was told to put supervisord and pm2."""
    Supervisord.folder = folder / "venv/bin"
    Pm2.folder = folder / "pm2"


def install_peers(folder: Path) -> None:
    """supervisord from PyPI and pm2 from npm, at fixed versions, into a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "venv/bin/supervisord").exists():
        subprocess.check_call([sys.executable, "-m", "venv", folder / "venv"])
        subprocess.check_call([folder / "venv/bin/pip", "install", "-q", "supervisor==4.3.0"])
    if not (folder / "pm2/node_modules/pm2").exists():
        subprocess.check_call(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", folder / "pm2", "pm2@7.0.3"])
