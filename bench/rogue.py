"""An agent that means harm, for hostile.py: `rogue.py processes|memory|log|messages`."""

import os
import pathlib
import socket
import sys
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/suites/support"))
import mqtt_packets as mqtt  # noqa: E402 (the suites have the packets)

CONNECTIONS = 8
PIECE = 1 << 20
MEMORY_WANTED = 10 << 30


def processes() -> None:
    """A fork bomb: each process makes more, and none ends."""
    while True:
        try:
            os.fork()
        except OSError:
            pass


def memory() -> None:
    """10 GB, each page touched."""
    held = [bytearray(b"x" * PIECE) for _ in range(MEMORY_WANTED // PIECE)]
    print(f"{len(held)} MiB were to be had")
    while True:
        pass


def log() -> None:
    """Lines as fast as they are taken."""
    block = b"all work and no play makes this agent a dull agent, says agent number 4711\n" * 1000
    while True:
        os.write(1, block)


def messages() -> None:
    """As many messages as the bus takes, on several connections: some for nobody, some for the registry."""
    own, prefix = os.environ["ALICIA_SERVICE"], os.environ["ALICIA_TOPIC_PREFIX"]
    bus = urllib.parse.urlsplit(os.environ["ALICIA_MQTT_URL"])
    with open(os.environ["ALICIA_TOKEN_FILE"]) as file:
        token = file.read().strip()
    name = os.environ["ALICIA_MQTT_USERNAME"]
    topics = (f"{prefix}/{own}/flood", f"{prefix}/system/discovery/resolve", f"{prefix}/system/discovery/register")
    flood = b"".join(mqtt.publish(mqtt.V4, topic.encode(), b'{"name":"x"}') for topic in topics) * 1000
    for number in range(CONNECTIONS):
        if os.fork() == 0:
            connection = socket.create_connection((bus.hostname, bus.port))
            connection.sendall(mqtt.connect(mqtt.V4, f"{own}-{number}".encode(), name.encode(), token.encode()))
            answer = connection.recv(4)
            if answer[3:] != b"\x00":
                sys.exit(f"not let in: {answer!r}")
            while True:
                connection.sendall(flood)
    for _ in range(CONNECTIONS):
        os.wait()
    sys.exit("the bus has shut us out")


if __name__ == "__main__":
    {"processes": processes, "memory": memory, "log": log, "messages": messages}[sys.argv[1]]()
