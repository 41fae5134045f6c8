"""Sends to an HTTP server what no client should send.

hostile_http.py API KEY SEED

Each case must end within PATIENCE_SECONDS: with the connection closed, or with an answer. An answer that refuses is a
problem document, or the bare refusal of the parser after which the connection is closed. No answer is a 5xx.
"""

import json
import random
import socket
import sys
import threading
import time
import urllib.request
import zlib
from urllib.parse import urlsplit

PATIENCE_SECONDS = 15
# What an endless sender may get rid of before it must be cut off: the buffers of the kernel on both sides, and some.
ENDLESS_BYTES_MAX = 64 << 20
BODY_BYTES_MAX = 1 << 20
SLOW_CLIENTS = 100
GARBAGE_CONNECTIONS = 300


class Fault(Exception):
    """What the server did wrong."""


class Server:
    def __init__(self, api, key):
        address = urlsplit(api)
        self.address = (address.hostname, address.port)
        self.host = address.netloc.encode()
        self.key = key.encode()

    def connect(self):
        connection = socket.create_connection(self.address, timeout=PATIENCE_SECONDS)
        connection.settimeout(PATIENCE_SECONDS)
        return connection

    def request(self, line, *headers, body=b"", host=True, key=True):
        """A request with our Host and our key."""
        head = [line]
        if host:
            head.append(b"Host: " + self.host)
        if key:
            head.append(b"Authorization: Bearer " + self.key)
        return b"\r\n".join([*head, *headers, b"", body])

    def post(self, *headers, body=b"", path=b"/api/keys", **more):
        return self.request(b"POST " + path + b" HTTP/1.1", b"Content-Type: application/json", *headers, body=body, **more)


class Answer:
    def __init__(self, status, headers, body, closed):
        self.status, self.headers, self.body, self.closed = status, headers, body, closed

    def check(self):
        if self.status >= 500:
            raise Fault(f"answered {self.status}: {self.body[:200]}")
        if self.status < 400:
            return
        if self.headers.get("content-type") == "application/problem+json":
            body = self.body
            if self.headers.get("content-encoding") == "gzip":
                body = zlib.decompress(body, wbits=31)
            problem = json.loads(body)
            if problem.get("status") != self.status or not problem.get("code"):
                raise Fault(f"a problem document without its fields: {problem}")
        elif self.headers.get("content-type", "").startswith("text/html") and self.status == 404:
            pass  # The page for people says it in words.
        elif self.body or not self.closed:
            raise Fault(f"{self.status} is no problem document: {self.headers} {self.body[:200]}")


def read_answer(connection):
    """The first answer, or None when the connection is closed before one."""
    data, closed = b"", False

    def more():
        nonlocal data, closed
        try:
            piece = connection.recv(65536)
        except ConnectionError:
            piece = b""
        except TimeoutError:
            raise Fault(f"neither an answer nor an end after {PATIENCE_SECONDS} s; until then {data[:200]}") from None
        closed = closed or not piece
        data += piece
        return bool(piece)

    while b"\r\n\r\n" not in data and more():
        pass
    if not data:
        return None
    if b"\r\n\r\n" not in data:
        raise Fault(f"half an answer: {data[:200]}")
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    status = int(lines[0].split()[1])
    length = headers.get("content-length")
    is_chunked = headers.get("transfer-encoding") == "chunked"
    while not (data.endswith(b"0\r\n\r\n") if is_chunked else length and len(data) - len(head) - 4 >= int(length)) and more():
        pass
    body = data[len(head) + 4 :][: None if length is None else int(length)]
    if is_chunked:
        body = joined(body)
    if headers.get("connection") == "close" and not closed:
        while more():
            pass
    return Answer(status, headers, body, closed)


def joined(chunks):
    """The body that was sent in these chunks."""
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        body += rest[: int(size, 16)]
        chunks = rest[int(size, 16) + 2 :] if int(size, 16) else b""
    return body


def exchange(server, data, half_close=False):
    """Sends, and gives the checked answer."""
    with server.connect() as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        except TimeoutError:
            raise Fault("reads no more, and closes nothing") from None
        answer = read_answer(connection)
    if answer:
        answer.check()
    return answer


def expect(*statuses):
    """A case: its answer has one of these statuses; None is a closed connection."""

    def case(server, data):
        answer = exchange(server, data)
        status = answer.status if answer else None
        if status not in statuses:
            raise Fault(f"answered {status}, expected one of {statuses}")

    return case


def endless(start, piece):
    """A case: sends pieces until it is cut off."""

    def case(server, _):
        deadline = time.monotonic() + PATIENCE_SECONDS
        sent = 0
        with server.connect() as connection:
            connection.settimeout(1)
            try:
                connection.sendall(start)
                while sent < ENDLESS_BYTES_MAX:
                    try:
                        sent += connection.send(piece * max(1, 65536 // len(piece)))
                    except TimeoutError:
                        if time.monotonic() > deadline:
                            raise Fault(f"held open after {sent} bytes and {PATIENCE_SECONDS} s") from None
            except ConnectionError:
                return
        raise Fault(f"took {sent} bytes")

    return case


def cases(server):
    """Name, what is sent, and how it is judged."""
    get, post = server.request, server.post
    refused = expect(400, None)
    host = server.host
    key_body = b'{"name":"never","scope":"read"}'
    length = str(len(key_body)).encode()
    yield "two Hosts", get(b"GET /health HTTP/1.1", b"Host: evil.example"), expect(400, 421)
    yield "two equal Hosts", get(b"GET /health HTTP/1.1", b"Host: " + host), expect(400, 421)
    yield "no Host", get(b"GET /health HTTP/1.1", host=False), expect(400, 421)
    yield "empty Host", get(b"GET /health HTTP/1.1", b"Host:", host=False), expect(400, 421)
    for name in (b"evil.example", b"127.0.0.1.evil.example", b"[::1", b"localhost@evil.example", b"\xff\xfe", b"127.0.0.1:80:80"):
        yield f"foreign Host {name}", get(b"GET /health HTTP/1.1", b"Host: " + name, host=False), expect(400, 421)
    yield "foreign absolute address", get(b"GET http://evil.example/health HTTP/1.1"), expect(400, 421)
    for origin in (b"http://evil.example", b"null", b"http://" + host + b".evil.example", b"http://" + host + b"@evil.example", b"\xff"):
        data = post(b"Origin: " + origin, b"Content-Length: " + length, body=key_body)
        yield f"foreign Origin {origin}", data, expect(403)
    yield "length too long, then the end", post(b"Content-Length: 4000", body=key_body), expect_cut_off
    yield "length too long, then silence", post(b"Content-Length: 4000", body=key_body), expect(400, 408, 413, None)
    yield "length too short", post(b"Content-Length: 3", body=key_body), expect(400, 422)
    for wrong in (b"-1", b"0x10", b"1e3", b"99999999999999999999999", b"+5", b"", b"5, 6", b"\xff"):
        yield f"length {wrong}", post(b"Content-Length: " + wrong, body=key_body), expect(400, 413, 415, None)
    yield "two lengths", post(b"Content-Length: 3", b"Content-Length: 30", body=key_body), refused
    chunked = b"Transfer-Encoding: chunked"
    # The body must not be taken by its length: what goes on after the chunks would be a request that a proxy did not see.
    yield "length and chunks", post(chunked, b"Content-Length: 5", body=b"0\r\n\r\n"), expect(400, 422, None)
    for wrong in (b"zz\r\nhello\r\n", b"-5\r\nhello\r\n", b"ffffffffffffffffff\r\nhi\r\n", b"5 5\r\nhello\r\n", b"5\nhello\n0\n\n", b"3\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n"):
        yield f"chunks {wrong}", post(chunked, body=wrong), expect(400, 413, 422, None)
    yield "chunks, then silence", post(chunked, body=b"5\r\nhel"), expect(400, 408, 413, None)
    for coding in (b"chunked, identity", b"gzip", b"xchunked", b"chunked, chunked", b"\x0bchunked"):
        yield f"coding {coding}", post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n"), expect(400, 413, 422, 501, None)
    yield "endless extension of a chunk", b"", endless(post(chunked, body=b"5;"), b"a" * 64)
    yield "endless trailers", b"", endless(post(chunked, body=b"0\r\n"), b"X-More: 1\r\n")
    yield "endless chunks", b"", endless(post(chunked), b"400\r\n" + b" " * 1024 + b"\r\n")
    yield "endless header", b"", endless(b"GET /health HTTP/1.1\r\nX-Long: ", b"a" * 64)
    yield "endless headers", b"", endless(b"GET /health HTTP/1.1\r\n", b"X-More: 1\r\n")
    yield "endless address", b"", endless(b"GET /", b"a" * 64)
    yield "endless empty lines", b"", endless(b"", b"\r\n")
    large = b'{"name":"' + b"a" * (2 << 20) + b'"}'
    yield "body of 2 MiB", post(b"Content-Length: %d" % len(large), body=large), expect(413, None)
    yield "body of 2 MiB, no key", post(b"Content-Length: %d" % len(large), body=large, key=False), expect(401, 413, None)
    deep = b"[" * 500_000
    yield "deep JSON", post(b"Content-Length: %d" % len(deep), body=deep), expect(422)
    deep = b'{"name":' * 100_000
    yield "deep JSON in a field", post(b"Content-Length: %d" % len(deep), body=deep), expect(422)
    for text in (b'{"name":"\xff\xfe","scope":"read"}', b'{"name":"\\ud800","scope":"read"}', b"\x00", b'{"name":1e999999,"scope":"read"}', b""):
        yield f"JSON {text}", post(b"Content-Length: %d" % len(text), body=text), expect(400, 422)
    for path in (b"/%ff%fe", b"/\xff\xfe", b"/api/registry/agents/%ff", b"/api/registry/agents/%00", b"/docs/errors/%2e%2e%2f%2e%2e%2fetc%2fpasswd", b"/../../etc/passwd", b"//evil.example/", b"/api/registry/agents/%", b"/" + b"a" * 60_000, b"/" + b"a/" * 20_000):
        yield f"path {path[:40]}", get(b"GET " + path + b" HTTP/1.1"), expect(303, 400, 404, 414, 422, None)
    for query in (b"limit=%ff", b"limit=\xff", b"limit=9" * 1000, b"&=&=%", b"limit=1&limit=2", b"cursor=%00", b"label=" + b"%25" * 10_000):
        data = get(b"GET /api/registry/agents?" + query + b" HTTP/1.1")
        yield f"query {query[:40]}", data, expect(200, 400, 414, 422, None)
    for line in (b"GET", b"GET  /health  HTTP/1.1", b"GET /health HTTP/9.9", b"GET /health", b"G\x00T / HTTP/1.1", b"GET /a b c HTTP/1.1", b"PRI * HTTP/2.0"):
        yield f"line {line}", get(line), expect(400, 505, None)
    for method in (b"TRACE", b"PATCH", b"BREW", b"PUT"):
        yield f"method {method}", get(method + b" /api/keys HTTP/1.1"), expect(405)
    yield "CONNECT", get(b"CONNECT evil.example:443 HTTP/1.1"), expect(400, 404, 405, 421)
    yield "Upgrade", get(b"GET /health HTTP/1.1", b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), expect(200)
    yield "Expect", post(b"Expect: 200-maybe", b"Content-Length: 2", body=b"{}"), expect(400, 417, 422)
    for value in (b"Bearer", b"Bearer \xff\xff", b"Basic YTpi", b"Bearer " + b"a" * 50_000, b""):
        data = get(b"GET /api/keys HTTP/1.1", b"Authorization: " + value, key=False)
        yield f"credential {value[:20]}", data, expect(400, 401, 431)
    cookies = [b"Cookie: alicia_session=" + b"a" * 100] * 90
    yield "cookies", get(b"GET /api/keys HTTP/1.1", *cookies, key=False), expect(400, 401, 431)
    yield "headers folded over lines", get(b"GET /health HTTP/1.1", b"X-A: 1\r\n 2"), expect(400, None)
    yield "header without a name", get(b"GET /health HTTP/1.1", b": 1"), expect(400, None)
    yield "space before the colon", get(b"GET /health HTTP/1.1", b"X-A : 1"), expect(400, None)
    yield "bare line feeds and nulls", b"GET /health HTTP/1.1\nHost: " + host + b"\nX-A: \x00\n\n", expect(400, None)
    yield "silence", b"", expect(400, 408, None)
    yield "half a head, then silence", b"GET /health HTTP/1.1\r\nHo", expect(400, 408, None)
    long = get(b"GET /api/" + b"a" * 4000 + b" HTTP/1.1", b"Accept-Encoding: gzip")
    yield "a long problem document, compressed", long, compressed


def expect_cut_off(server, data):
    """Our side ends in the middle of the body."""
    answer = exchange(server, data, half_close=True)
    if answer and answer.status not in (400, 413, 422):
        raise Fault(f"answered {answer.status}")


def compressed(server, data):
    answer = exchange(server, data)
    if answer.status != 404 or answer.headers.get("content-encoding") != "gzip":
        raise Fault(f"answered {answer.status} {answer.headers}")


def garbage(server, seed):
    """Random bytes, some after a good first line."""
    source = random.Random(seed)
    for number in range(GARBAGE_CONNECTIONS):
        data = source.randbytes(source.randrange(1, 2000))
        if number % 3 == 0:
            data = b"GET /health HTTP/1.1\r\n" + data + b"\r\n\r\n"
        elif number % 3 == 1:
            data += b"\r\n\r\n"
        exchange(server, data, half_close=True)


def slowloris(server):
    """Many clients that send a byte a second: each is cut off, and others are served in the meantime."""
    clients = [server.connect() for _ in range(SLOW_CLIENTS)]
    head = server.request(b"GET /health HTTP/1.1", b"X-Slow: " + b"a" * 100)
    started, longest, position = time.monotonic(), 0.0, 0
    open_clients = set(clients)
    while open_clients:
        if time.monotonic() - started > PATIENCE_SECONDS:
            raise Fault(f"{len(open_clients)} slow clients are still there after {PATIENCE_SECONDS} s")
        for client in list(open_clients):
            if not drips(client, head[position : position + 1]):
                open_clients.discard(client)
                client.close()
        asked = time.monotonic()
        exchange(server, server.request(b"GET /health HTTP/1.1"))
        longest = max(longest, time.monotonic() - asked)
        position += 1
        time.sleep(1)
    print(f"{SLOW_CLIENTS} slow clients: cut off after {time.monotonic() - started:.0f} s; others waited {longest * 1000:.0f} ms at most")
    if longest > 2:
        raise Fault(f"others waited {longest:.1f} s")


def drips(client, byte):
    """Sends a byte; whether the connection is still open."""
    try:
        client.send(byte)
        client.setblocking(False)
        return client.recv(4096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        client.setblocking(True)


def run_all(server, seed):
    faults = []
    lock = threading.Lock()

    def judged(name, case, *arguments):
        try:
            case(*arguments)
        except Exception as fault:  # Also one of our own: what was not judged has not passed.
            with lock:
                faults.append(f"{name}: {fault!r}")

    everything = [(name, case, server, data) for name, data, case in cases(server)]
    everything.append(("random bytes", garbage, server, seed))
    everything.append(("slow clients", slowloris, server))
    threads = [threading.Thread(target=judged, args=one) for one in everything]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{len(everything)} cases, {GARBAGE_CONNECTIONS} connections of random bytes, seed {seed}")
    return faults


def main(api, key, seed):
    server = Server(api, key)
    faults = run_all(server, int(seed))
    keys = urllib.request.Request(api + "/api/keys", headers={"Authorization": "Bearer " + key})
    with urllib.request.urlopen(keys, timeout=PATIENCE_SECONDS) as answer:
        if "never" in answer.read().decode():
            faults.append("a refused request made a key")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
