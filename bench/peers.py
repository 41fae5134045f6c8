"""The managers that Alicia is compared with, each with its own configuration and commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from managers import GRACE_S, Fleet, Manager
from processes import Broken, Stamp, all_pids, children_of, command_line_of, pids_in_namespace, wait_until


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
    """pm2 from npm, its daemon started by the first command as usual. `vizion`, which looks for git, is off."""

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
        wanted = " ".join(f"{name}.service" for name in self.fleet.names())
        (units / "bench.target").write_text(
            f"[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants={wanted}\n"
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
        shell = ["sh", "-c", self.SCRIPT, "sh", str(units), str(self.program)]
        command = ["unshare", *kinds, "--propagation", "private", *shell]
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


def install(folder: Path) -> None:
    """supervisord from PyPI and pm2 from npm, at fixed versions, into a folder of their own; once."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "venv/bin/supervisord").exists():
        subprocess.check_call([sys.executable, "-m", "venv", folder / "venv"])
        subprocess.check_call([folder / "venv/bin/pip", "install", "-q", "supervisor==4.3.0"])
    if not (folder / "pm2/node_modules/pm2").exists():
        quiet = ["--silent", "--no-fund", "--no-audit"]
        subprocess.check_call(["npm", "install", *quiet, "--prefix", folder / "pm2", "pm2@7.0.3"])
    Supervisord.folder = folder / "venv/bin"
    Pm2.folder = folder / "pm2"
