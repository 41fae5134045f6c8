"""What `alicia new service` writes, started as the orchestrator starts it: with a small environment."""

from __future__ import annotations

import json
import os
import re
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


def render(template: Path, directory: Path, name: str) -> None:
    sdk = ROOT / "crates" / "alicia-sdk"
    words = {"name": name, "version": "0.1.0", "directory": f"./{name}", "sdk_path": str(sdk)}
    for file in template.rglob("*"):
        if file.is_dir():
            continue
        text = file.read_text()
        for word, value in words.items():
            text = text.replace("{{" + word + "}}", value)
        assert "{{" not in text, f"{file.name} has a placeholder that is not documented"
        target = directory / file.relative_to(template)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    directory = tmp_path / "thermostat"
    render(TEMPLATE, directory, "thermostat")
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


@pytest.fixture
def written_in_rust(tmp_path: Path) -> Path:
    directory = tmp_path / "lamp"
    render(ROOT / "templates" / "service" / "rust", directory, "lamp")
    return directory


def test_the_rust_service_is_at_most_twenty_lines_and_pins_what_the_checkout_has(written_in_rust: Path) -> None:
    code = (written_in_rust / "src" / "main.rs").read_text().partition("#[cfg(test)]")[0]
    assert len([line for line in code.splitlines() if line.strip() and not line.startswith("//!")]) <= 20
    pins = re.findall(r'^(\w+) = \{ version = "=([^"]+)"', (written_in_rust / "Cargo.toml").read_text(), re.MULTILINE)
    assert {name for name, _ in pins} == {"serde", "tokio"}
    lock = (ROOT / "Cargo.lock").read_text()
    for name, version in pins:
        assert f'name = "{name}"\nversion = "{version}"' in lock, f"{name} {version} is not what Cargo.lock has"


@pytest.mark.skipif(os.environ.get("ALICIA_REQUIRE_ALL") != "1", reason="compiles for minutes: ALICIA_REQUIRE_ALL=1")
def test_the_rust_service_runs_unedited(
    written_in_rust: Path, broker: Broker, observer: Observer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    compiled = environment(CARGO_TARGET_DIR=str(ROOT / "target"))
    subprocess.run(["cargo", "test", "--quiet"], cwd=written_in_rust, env=compiled, check=True, timeout=1_200)
    supervised = {
        "ALICIA_SERVICE": "thermostat",
        "ALICIA_INSTANCE": "i-1",
        "ALICIA_MQTT_URL": broker.url,
        "ALICIA_MQTT_USERNAME": "thermostat",
        "ALICIA_TOKEN_FILE": str(token),
        "PORT": str(free_port()),
    }
    # As `command:` of its entry, but for the profile: a release build takes longer and shows no more.
    program = subprocess.Popen(["cargo", "run", "--quiet"], cwd=written_in_rust, env={**compiled, **supervised})
    try:
        observer.wait("alicia/system/discovery/register", deadline_s=600)
        with urllib.request.urlopen(f"http://127.0.0.1:{supervised['PORT']}/health", timeout=10) as answer:
            assert json.load(answer)["status"] == "healthy"
        assert observer.command("thermostat", "greet", {"name": "Ada"}).payload == "Hello, Ada!"
        observer.wait("alicia/lamp/here")
        assert stop(program) == 0
    finally:
        if program.poll() is None:
            program.kill()
