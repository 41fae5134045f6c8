"""A soak: a fleet of agents, one fault a second, and how much of the time each agent answered.

The faults, in random turns: an agent is killed, stopped, or driven out of memory; the disk of the data directory is full
for a second, or slow; the host has no descriptors left for a second; its clock jumps by an hour and back; the host is
killed and started again. Every agent is asked ten times a second. At the end everything must run, once, under supervision.

A kind of fault that this machine does not allow (no root, no libfaketime, no memory controller) is left out and said.
"""

import argparse
import asyncio
import collections
import contextlib
import ctypes
import glob
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ASKED_EVERY_S = 0.1
ANSWER_WITHIN_S = 0.1
FAULT_LASTS_S = 1.0
JUMP_S = 3600
DATA_MIB = 128
# Below the ports that the system gives to connections, or one of those might take an agent's.
PORTS_FROM, PORTS_TO, PORTS_STEP = 21000, 30000, 100
# Debian: libfaketime. The same in a folder of each architecture.
FAKETIME = next(glob.iglob("/usr/lib/*/faketime/libfaketime.so.1"), "")
MNT_DETACH = 2
MEMORY = "/dev/shm"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alicia", type=pathlib.Path, default=HERE.parent / "target/release/alicia", help="the program")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--faults-per-second", type=float, default=1)
    parser.add_argument("--fault", action="append", help="only this kind; may be given several times; default: all")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--at-least", type=float, default=99.9, help="percent of agent-seconds; less is exit code 1")
    return parser.parse_args()


def build(name: str, directory: pathlib.Path, *flags: str) -> pathlib.Path:
    program = directory / name
    command = ["cc", "-O2", "-o", str(program), str(HERE / f"{name}.c"), *flags]
    subprocess.run(command, check=True)
    return program


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nothing listens on."""
    for first in range(PORTS_FROM, PORTS_TO, PORTS_STEP):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    sys.exit(f"no {count} ports in a row are free from {PORTS_FROM} to {PORTS_TO}")


class Times:
    """When each agent answered."""

    def __init__(self, agents: int) -> None:
        self.asked_s = [0.0] * agents
        self.down_s = [0.0] * agents
        self.down_by_cause: collections.Counter[str] = collections.Counter()
        self.longest: list[tuple[float, int, str]] = []
        self.last_fault = ["none"] * agents

    def percent(self) -> float:
        asked = sum(self.asked_s)
        return 100 * (1 - sum(self.down_s) / asked) if asked else 0.0


class House:
    """The host, and what it stands on."""

    def __init__(self, choice: argparse.Namespace, place: pathlib.Path) -> None:
        self.choice, self.place = choice, place
        self.first_port = free_ports(choice.agents)
        self.data = place / "data"
        self.data.mkdir()
        self.left_out: dict[str, str] = {}
        self.mounted = self.mount()
        self.steady = build("steady", place)
        self.slow = build("slow", place, "-shared", "-fPIC", "-ldl")
        self.is_slow = place / "slow-disk"
        self.clock = place / "clock"
        self.clock.write_text("+0\n")
        self.log = open(place / "host.log", "ab")
        self.host: subprocess.Popen[bytes] | None = None
        if not FAKETIME:
            self.left_out["clock jump"] = "libfaketime is not installed"
        (place / "alicia.yaml").write_text(self.file())

    def mount(self) -> bool:
        """A file system of its own, so that only this one is ever full."""
        libc = ctypes.CDLL(None, use_errno=True)
        size = f"size={DATA_MIB}m".encode()
        if libc.mount(b"tmpfs", str(self.data).encode(), b"tmpfs", 0, size) == 0:
            return True
        self.left_out["disk full"] = os.strerror(ctypes.get_errno())
        return False

    def file(self) -> str:
        services = [
            f"  agent-{agent}:\n"
            f"    command: [{self.steady}, '{self.first_port + agent}']\n"
            f"    liveness: {{http: {{port: {self.first_port + agent}}}, interval: 100ms, timeout: 100ms, fall: 2}}\n"
            f"    limits: {{memory: 32MiB}}\n"
            f"    start_limit: {{starts: 0}}\n"
            f"    back_off: {{reset_after: 1s}}\n"
            for agent in range(self.choice.agents)
        ]
        head = f"name: soak\ndata: {self.data}\nhttp: {{listen: '127.0.0.1:0'}}\nbroker: {{listen: '127.0.0.1:0'}}\n"
        return head + "services:\n" + "".join(services)

    def command(self, *words: str) -> list[str]:
        return [str(self.choice.alicia.resolve()), "--file", str(self.place / "alicia.yaml"), *words]

    def start(self) -> None:
        preload = [str(self.slow)]
        environment = {"PATH": os.environ["PATH"], "SLOW_DISK": str(self.is_slow)}
        if "clock jump" not in self.left_out:
            preload.append(FAKETIME)
            environment |= {
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1",
            }
        environment["LD_PRELOAD"] = ":".join(preload)
        command = self.command("up", "--no-table")
        self.host = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log, cwd=self.place)

    def ask(self, *words: str) -> str:
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, cwd=self.place)
        return done.stdout

    def rows(self) -> list[dict]:
        try:
            return json.loads(self.ask("ps", "--json"))
        except ValueError:
            return []

    def pids(self) -> dict[int, list[int]]:
        """The processes of each agent, from /proc: also those that nobody supervises."""
        found: dict[int, list[int]] = {agent: [] for agent in range(self.choice.agents)}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
                if words[0] == str(self.steady).encode():
                    found[int(words[1]) - self.first_port].append(int(entry))
        return found

    def last_words(self) -> str:
        return (self.place / "host.log").read_text(errors="replace")[-2000:]

    def end(self) -> None:
        self.is_slow.unlink(missing_ok=True)
        with contextlib.suppress(subprocess.SubprocessError):
            self.ask("down")
        if self.host:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.host.wait(30)
            if self.host.poll() is None:
                self.host.kill()
                self.host.wait()
        for pids in self.pids().values():
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if self.mounted:
            ctypes.CDLL(None).umount2(str(self.data).encode(), MNT_DETACH)


async def answers(port: int) -> bool:
    writer = None
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer:
            writer.close()


async def watch(house: House, agent: int, times: Times, over: asyncio.Event) -> None:
    await asyncio.sleep(random.random() * ASKED_EVERY_S)
    last, outage = time.monotonic(), 0.0
    while not over.is_set():
        was_up = await answers(house.first_port + agent)
        await asyncio.sleep(max(0.0, last + ASKED_EVERY_S - time.monotonic()))
        now = time.monotonic()
        times.asked_s[agent] += now - last
        if was_up:
            if outage:
                times.longest.append((outage, agent, times.last_fault[agent]))
                times.longest = sorted(times.longest, reverse=True)[:5]
            outage = 0.0
        else:
            outage += now - last
            times.down_s[agent] += now - last
            times.down_by_cause[times.last_fault[agent]] += now - last
        last = now


class Faults:
    """What is done to the house, one a second."""

    def __init__(self, house: House, times: Times, dice: random.Random) -> None:
        self.house, self.times, self.dice = house, times, dice
        self.done: collections.Counter[str] = collections.Counter()
        self.host_restarts = 0
        self.kinds = {
            "kill": self.kill,
            "stop": self.stop,
            "out of memory": self.eat,
            "disk full": self.fill_disk,
            "slow disk": self.slow_disk,
            "no descriptors": self.take_descriptors,
            "clock jump": self.jump,
            "host killed": self.kill_host,
        }
        for kind in house.left_out:
            self.kinds.pop(kind)
        if unknown := set(house.choice.fault or ()) - set(self.kinds):
            sys.exit(f"not to be had: {', '.join(unknown)}; there are: {', '.join(self.kinds)}")
        for kind in set(self.kinds) - set(house.choice.fault or self.kinds):
            self.kinds.pop(kind)

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        period = 1 / self.house.choice.faults_per_second
        waiting: set[asyncio.Task[None]] = set()
        while time.monotonic() < end:
            began = time.monotonic()
            kind = self.dice.choice(list(self.kinds))
            self.done[kind] += 1
            task = asyncio.create_task(self.kinds[kind]())
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            await asyncio.sleep(max(0.0, began + period - time.monotonic()))
        await asyncio.gather(*waiting)

    def victim(self, kind: str) -> int | None:
        agent = self.dice.randrange(self.house.choice.agents)
        self.times.last_fault[agent] = kind
        pids = self.house.pids()[agent]
        return pids[0] if pids else None

    async def kill(self) -> None:
        if pid := self.victim("kill"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def stop(self) -> None:
        if pid := self.victim("stop"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    async def eat(self) -> None:
        agent = self.dice.randrange(self.house.choice.agents)
        self.times.last_fault[agent] = "out of memory"
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.house.first_port + agent)
            writer.write(b"GET /eat HTTP/1.0\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(FAULT_LASTS_S)
            writer.close()

    async def fill_disk(self) -> None:
        filler = self.house.data / "filler"
        with open(filler, "wb", buffering=0) as file:
            for piece in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        at = file.seek(0, os.SEEK_END)
                        os.posix_fallocate(file.fileno(), at, piece)
        await asyncio.sleep(FAULT_LASTS_S)
        filler.unlink(missing_ok=True)

    async def slow_disk(self) -> None:
        self.house.is_slow.touch()
        await asyncio.sleep(FAULT_LASTS_S)
        self.house.is_slow.unlink(missing_ok=True)

    async def take_descriptors(self) -> None:
        host = self.house.host
        if not host:
            return
        with contextlib.suppress(OSError):
            usual = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{host.pid}/fd"))
            resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (used, usual[1]))
            await asyncio.sleep(FAULT_LASTS_S)
            resource.prlimit(host.pid, resource.RLIMIT_NOFILE, usual)

    async def jump(self) -> None:
        self.house.clock.write_text(f"{self.dice.choice(['+', '-'])}{JUMP_S}\n")
        await asyncio.sleep(FAULT_LASTS_S)
        self.house.clock.write_text("+0\n")

    async def kill_host(self) -> None:
        host = self.house.host
        if not host:
            return
        self.house.host = None
        host.kill()
        host.wait()
        self.host_restarts += 1
        self.house.start()


async def settle(house: House) -> tuple[list[dict], dict[int, list[int]]]:
    """Waits until everything runs once, or for a minute, or until the host has ended."""
    rows, pids = [], {}
    for _ in range(60):
        rows = house.rows()
        pids = house.pids()
        running = [row for row in rows if row["state"] == "running"]
        if len(running) == house.choice.agents and all(len(found) == 1 for found in pids.values()):
            break
        if house.host and house.host.poll() is not None:
            break
        await asyncio.sleep(1)
    return rows, pids


async def soak(choice: argparse.Namespace, place: pathlib.Path) -> int:
    seed = choice.seed if choice.seed is not None else random.SystemRandom().randrange(1 << 32)
    times, house = Times(choice.agents), House(choice, place)
    faults = Faults(house, times, random.Random(seed))
    print(f"{choice.agents} agents, {choice.minutes:g} minutes, seed {seed}", flush=True)
    for kind, why in house.left_out.items():
        print(f"left out: {kind}: {why}")
    over = asyncio.Event()
    try:
        house.start()
        rows, pids = await settle(house)
        if any(len(found) != 1 for found in pids.values()):
            sys.exit(f"the fleet does not come up: {house.last_words()}")
        async with asyncio.TaskGroup() as watching:
            for agent in range(choice.agents):
                watching.create_task(watch(house, agent, times, over))
            await faults.run(choice.minutes * 60)
            over.set()
        rows, pids = await settle(house)
        for _, agent, _ in times.longest[:1]:
            print(house.ask("explain", f"agent-{agent}"))
    finally:
        house.end()
    return report(choice, times, faults, rows, pids)


def report(choice: argparse.Namespace, times: Times, faults: Faults, rows: list[dict], pids: dict[int, list[int]]) -> int:
    percent = times.percent()
    print(f"\n{percent:.4f} % of {sum(times.asked_s):.0f} agent-seconds up")
    print("\n| fault | times | agent-seconds down |\n|---|---|---|")
    for kind, count in sorted(faults.done.items()):
        print(f"| {kind} | {count} | {times.down_by_cause[kind]:.1f} |")
    print(f"| none before | | {times.down_by_cause['none']:.1f} |")
    for outage, agent, kind in times.longest:
        print(f"longest: {outage:.1f} s, agent-{agent}, after {kind}")
    not_once = {agent: found for agent, found in pids.items() if len(found) != 1}
    strangers = [row for row in rows if row["pid"] not in pids[int(row["service"].split("-")[1])]]
    not_running = [row for row in rows if row["state"] != "running"]
    ok = percent >= choice.at_least and not not_once and not strangers and not not_running and len(rows) == choice.agents
    print(f"not exactly once: {not_once}; not running: {not_running}; wrong pids: {strangers}")
    print("passed" if ok else f"FAILED: at least {choice.at_least} % were wanted, and every agent once")
    return 0 if ok else 1


def main() -> None:
    choice = options()
    if not shutil.which("cc"):
        sys.exit("a C compiler is needed (Debian: gcc)")
    # In memory: what other programs do to the disk is no fault that was asked for.
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="alicia-soak-", dir=memory) as place:
        directory = pathlib.Path(place)
        code = asyncio.run(soak(choice, directory))
        if code:
            kept = pathlib.Path(tempfile.gettempdir(), "soak-host.log")
            shutil.copy(directory / "host.log", kept)
            print(f"the log of the host: {kept}")
    sys.exit(code)


if __name__ == "__main__":
    main()
