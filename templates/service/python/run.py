"""Starts the service in a virtual environment of its own, which the first start makes.

    python3 run.py         the service
    python3 run.py test    its tests

The environment is made again only when a requirements file or Python itself changes; else the service starts at once.
Everything here is the standard library, so that a bare Python is enough.
"""

import hashlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(HERE, ".venv")
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
PAHO_CHECK = "import paho.mqtt.client, paho.mqtt.properties"


def main():
    if sys.version_info < (3, 9):
        fail("needs Python 3.9 or newer, this is %s" % sys.version.split()[0])
    if sys.argv[1:] not in ([], ["test"]):
        fail("knows only `test`, found: %s" % " ".join(sys.argv[1:]))
    os.chdir(HERE)
    if sys.argv[1:] == ["test"]:
        python = prepared(["requirements.txt", "requirements-test.txt"])
        os.execv(python, [python, "-m", "pytest"])
    python = prepared(["requirements.txt"])
    os.execv(python, [python, "-u", "service.py"])


def prepared(requirements):
    """The Python of the environment with at least these requirements in it."""
    python = os.path.join(VENV, "bin", "python")
    with open(os.path.join(HERE, ".venv.lock"), "w") as lock:
        hold(lock)  # two instances that start together make one environment
        for count in range(1, len(requirements) + 1):
            reason = None if is_ready(requirements[:count]) else add(python, requirements[:count])
            if reason is not None:
                return fallback(reason, requirements)
    return python


def hold(lock):
    try:
        import fcntl
    except ImportError:  # not Unix: there one starts one instance by hand
        return
    fcntl.flock(lock, fcntl.LOCK_EX)


def fingerprint(requirements):
    digest = hashlib.sha256(sys.version.encode())
    for name in requirements:
        with open(name, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def marker(name):
    return os.path.join(VENV, name + ".ready")


def is_ready(requirements):
    try:
        with open(marker(requirements[-1])) as file:
            return file.read() == fingerprint(requirements)
    except OSError:
        return False


def add(python, requirements):
    """Brings the last of the requirements into the environment; the reason in words when that fails."""
    if len(requirements) == 1:
        print("run.py: making .venv, which only the first start does", flush=True)
        reason = run([sys.executable, "-m", "venv", "--clear", VENV])
        if reason is not None:
            return "cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv\n" + reason
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2"]
    reason = run(install + ["-r", requirements[-1]])
    if reason is not None:
        return (
            "cannot install %s; is the package index reachable? Behind a proxy or with a mirror, set HTTPS_PROXY or\n"
            "PIP_INDEX_URL under `environment:` of the service in alicia.yaml, which gets no other environment\n%s"
            % (requirements[-1], reason)
        )
    with open(marker(requirements[-1]), "w") as file:
        file.write(fingerprint(requirements))
    return None


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return None if done.returncode == 0 else done.stdout.decode(errors="replace").strip()


def fallback(reason, requirements):
    """Without an index the paho-mqtt of the system is good enough to run on, though its version is not the pinned one."""
    has_paho = subprocess.run([sys.executable, "-c", PAHO_CHECK], stderr=subprocess.DEVNULL).returncode == 0
    if requirements == ["requirements.txt"] and has_paho:
        print("run.py: %s\nrun.py: going on with the system's paho-mqtt" % reason, file=sys.stderr, flush=True)
        return sys.executable
    fail(reason)


def fail(reason):
    print("run.py: %s" % reason, file=sys.stderr)
    sys.exit(EXIT_CONFIGURATION)


if __name__ == "__main__":
    main()
