"""A server on an inherited socket (LISTEN_FDS): says its version, and ends in good order on SIGTERM.

usage: served.py VERSION [good | crash | never-ready | ends-soon]
"""

import os
import select
import signal
import socket
import sys
import time

FIRST_FD = 3
VERSION, MANNER = sys.argv[1], (sys.argv[2:] or ["good"])[0]

print(f"version {VERSION} begins", flush=True)
if MANNER == "crash":
    print(f"version {VERSION} cannot work", flush=True)
    sys.exit(1)

if int(os.environ["LISTEN_PID"]) != os.getpid() or int(os.environ["LISTEN_FDS"]) != 1:
    sys.exit("the socket is not for this process")
shared = socket.socket(fileno=FIRST_FD)
shared.setblocking(False)
own = socket.create_server(("127.0.0.1", int(os.environ["PORT_ADMIN"])))
wake, signalled = socket.socketpair()
signalled.setblocking(False)
signal.set_wakeup_fd(signalled.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)
ends_at = time.monotonic() + 0.2 if MANNER == "ends-soon" else None


def answer(connection, status):
    connection.settimeout(5)
    request = b""
    while b"\r\n\r\n" not in request:
        part = connection.recv(4096)
        if not part:
            return
        request += part
    body = f"version {VERSION}".encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


while True:
    readable, _, _ = select.select([shared, own, wake], [], [], 0.05)
    if wake in readable:
        print(f"version {VERSION} ends", flush=True)
        sys.exit(0)
    if ends_at is not None and time.monotonic() >= ends_at:
        print(f"version {VERSION} falls over", flush=True)
        sys.exit(3)
    for listener in (shared, own):
        if listener not in readable:
            continue
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue  # Another instance was quicker.
        with connection:
            connection.setblocking(True)
            try:
                answer(connection, 503 if listener is own and MANNER == "never-ready" else 200)
            except OSError as error:
                print(f"a client went away: {error}", flush=True)
