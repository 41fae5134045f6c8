"""Tests of {{name}}: `python3 run.py test`."""

import os
import subprocess
import sys

from service import greet, greeted


def test_it_greets_by_name() -> None:
    assert greet("Ada") == {"text": "Hello, Ada!"}
    assert greeted[-1] == "Ada"


def test_without_a_bus_it_says_what_to_do() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ALICIA_")}
    ended = subprocess.run([sys.executable, "service.py"], env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 78
    assert "alicia up" in ended.stderr
