"""What `alicia new service --lang python` writes, started as the orchestrator starts it: with a small environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from .bus import TOKEN, Broker, Observer, free_port

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "templates" / "service" / "python"
PACKAGE = ROOT / "sdk" / "python" / "src" / "alicia_sdk"
INSTALL_S = 240.0


@pytest.fixture
def written(tmp_path: Path) -> Path:
    directory = tmp_path / "thermostat"
    directory.mkdir()
    for file in TEMPLATE.iterdir():
        text = file.read_text()
        for word, value in {"name": "thermostat", "version": "0.1.0", "directory": "./thermostat"}.items():
            text = text.replace("{{" + word + "}}", value)
        assert "{{" not in text, f"{file.name} has a placeholder that is not documented"
        (directory / file.name).write_text(text)
    shutil.copytree(PACKAGE, directory / "alicia_sdk", ignore=shutil.ignore_patterns("__pycache__"))
    return directory


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    # A mirror is set by the test's own machine, as a user would set it in the file.
    mirror = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_PROXY")}
    return {**kept, **mirror, **more}


def start(directory: Path, more: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "run.py"], cwd=directory, env=environment(**more))


def stop(program: subprocess.Popen[bytes]) -> int:
    program.send_signal(signal.SIGTERM)
    return program.wait(15)


def test_it_runs_unedited_and_at_once_the_second_time(
    written: Path, broker: Broker, observer: Observer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    supervised = {
        "ALICIA_SERVICE": "thermostat",
        "ALICIA_INSTANCE": "i-1",
        "ALICIA_MQTT_URL": broker.url,
        "ALICIA_MQTT_USERNAME": "thermostat",
        "ALICIA_TOKEN_FILE": str(token),
        "PORT": str(free_port()),
    }
    begun = time.monotonic()
    first = start(written, supervised)
    try:
        deadline = time.monotonic() + INSTALL_S
        while not observer.on("alicia/system/discovery/register") and time.monotonic() < deadline:
            assert first.poll() is None, "the program ended on its first start"
            time.sleep(0.05)
        observer.wait("alicia/system/discovery/register")
        took_s = time.monotonic() - begun
        with urllib.request.urlopen(f"http://127.0.0.1:{supervised['PORT']}/health", timeout=10) as answer:
            assert json.load(answer)["status"] == "healthy"
        assert observer.command("thermostat", "greet", {"name": "Ada"}).payload == {"text": "Hello, Ada!"}
        observer.wait("alicia/thermostat/greeted")
        assert stop(first) == 0
    finally:
        if first.poll() is None:
            first.kill()
    # Without an index: nothing is installed again.
    begun = time.monotonic()
    second = start(written, {**supervised, "ALICIA_INSTANCE": "i-2", "PIP_INDEX_URL": "http://127.0.0.1:9/"})
    try:
        observer.wait("alicia/system/discovery/register", lambda one: one.payload["instance"] == "i-2")
        assert time.monotonic() - begun < max(took_s, 5.0)
        assert stop(second) == 0
    finally:
        if second.poll() is None:
            second.kill()


def test_its_own_tests_pass(written: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "run.py", "test"], cwd=written, env=environment(), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_without_an_index_it_says_what_to_do(written: Path) -> None:
    """On a Python that has no paho-mqtt either: the one that made this environment, without its packages."""
    bare = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1"}
    base = getattr(sys, "_base_executable", sys.executable)
    ended = subprocess.run(
        [base, "-S", "run.py"], cwd=written, env=environment(**bare), capture_output=True, text=True
    )
    assert ended.returncode == 78
    assert "cannot install requirements.txt" in ended.stderr
    assert "`environment:` of the service in alicia.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_service_is_at_most_twenty_lines(written: Path) -> None:
    lines = (written / "service.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 20
