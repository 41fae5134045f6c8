"""Does to an MQTT broker what no client should do, while others use it.

hostile_mqtt.py API PORT KEY SEED SHARE: SHARE of the full numbers, for example 0.1 to warm up.

Each connection must be closed by the broker within PATIENCE_SECONDS after a fault, or at the end of ours.
"""

import asyncio
import random
import subprocess
import sys
import time
import urllib.request

import mqtt_packets as mqtt

PATIENCE_SECONDS = 15
USER = b"admin"

GARBAGE_CONNECTIONS = 2_000
MUTATED_CONNECTIONS = 600
SILENT_CLIENTS = 1_000
SUBSCRIBES = 5_000
WILL_CLIENTS = 50
STUCK_BYTES = 48 << 20
AT_ONCE = 100

# The broker's limits (`broker` in the file) that are looked for here.
SUBSCRIPTIONS_MAX = 1_000
WILL_BYTES_MAX = 60_000

# A message of well-behaved clients comes in this time, whatever the others do, also in a debug build on a busy machine.
LATENCY_SECONDS_MAX = 3.0


class Fault(Exception):
    """What the broker did wrong."""


class Broker:
    def __init__(self, api, port, key, seed, share):
        self.api, self.port, self.key, self.share = api, int(port), key.encode(), float(share)
        self.random = random.Random(int(seed))
        self.gate = asyncio.Semaphore(AT_ONCE)
        self.faults = []

    def count(self, full):
        return max(1, int(full * self.share))

    async def dial(self):
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), PATIENCE_SECONDS)

    async def enter(self, level, client_id, **more):
        """A connection that was let in."""
        reader, writer = await self.dial()
        writer.write(mqtt.connect(level, client_id, USER, self.key, **more))
        answer = await asyncio.wait_for(reader.readexactly(4), PATIENCE_SECONDS)
        if answer[0] != mqtt.CONNACK or answer[3] != 0:
            raise Fault(f"not let in: {answer}")
        if level == mqtt.V5:
            await reader.readexactly(answer[1] - 2)
        return reader, writer

    def clients(self):
        request = urllib.request.Request(self.api + "/api/broker/clients", headers={"Authorization": "Bearer " + self.key.decode()})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.read().decode()

    async def judged(self, name, doing):
        """Takes its turn, and notes a fault."""
        async with self.gate:
            await self.judged_at_once(name, doing)

    async def judged_at_once(self, name, doing):
        try:
            await doing
        except (Fault, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as fault:
            self.faults.append(f"{name}: {fault!r}")


async def until_closed(reader, writer, patience=PATIENCE_SECONDS):
    """All that came until the broker closed."""
    heard = bytearray()

    async def drain():
        while piece := await reader.read(65536):
            heard.extend(piece)

    try:
        await asyncio.wait_for(drain(), patience)
    except ConnectionError:
        pass
    except asyncio.TimeoutError:
        raise Fault(f"still open after {patience} s; it said {bytes(heard[:50])}") from None
    finally:
        writer.transport.abort()
    return bytes(heard)


async def send(broker, data, end=False):
    """A connection that sends this, and perhaps its own end; gives what came until the broker closed."""
    reader, writer = await broker.dial()
    try:
        writer.write(data)
        if end:
            writer.write_eof()
    except (ConnectionError, RuntimeError):
        pass
    return await until_closed(reader, writer)


# === Packets ===


async def garbage(broker):
    """Random bytes; every other time after the first byte of a CONNECT."""

    def one(number):
        data = broker.random.randbytes(broker.random.randrange(1, 600))
        return send(broker, b"\x10" + data if number % 2 else data)

    many = [broker.judged("random bytes", one(number)) for number in range(broker.count(GARBAGE_CONNECTIONS))]
    await asyncio.gather(*many)
    return f"{len(many)} connections with random bytes"


def mutate(source, data):
    data = bytearray(data)
    for _ in range(source.randrange(1, 5)):
        position = source.randrange(len(data))
        kind = source.randrange(3)
        if kind == 0:
            data[position] ^= 1 << source.randrange(8)
        elif kind == 1:
            data[position] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
        else:
            del data[position:]
            if not data:
                return b"\x00"
    return bytes(data)


async def mutated(broker):
    """Good packets with a few bytes changed, behind a good CONNECT or as the CONNECT."""

    def one(number):
        level = mqtt.V5 if number % 2 else mqtt.V4
        hello = mqtt.connect(level, b"suite-mutated-%d" % number, USER, broker.key)
        packets = [
            mqtt.publish(level, b"suite/mutated", b"x" * 20, qos=number % 3),
            mqtt.subscribe(level, [b"suite/mutated", b"suite/+/x"]),
            mqtt.packet(mqtt.UNSUBSCRIBE, b"\x00\x02" + mqtt.properties(level) + mqtt.text(b"suite/mutated")),
        ]
        if number % 4 == 0:
            return send(broker, mutate(broker.random, hello) + packets[0], end=True)
        return send(broker, hello + mutate(broker.random, broker.random.choice(packets)) + mqtt.packet(mqtt.PINGREQ), end=True)

    many = [broker.judged("mutated packets", one(number)) for number in range(broker.count(MUTATED_CONNECTIONS))]
    await asyncio.gather(*many)
    return f"{len(many)} connections with mutated packets"


async def faults_by_name(broker):
    """Each fault of the standards on its own: the broker closes, or does at least not do what was asked."""

    async def refused(data):
        heard = await send(broker, data)
        if heard[:1] == bytes([mqtt.CONNACK]) and heard[3] == 0:
            raise Fault("let in")

    ear, ear_writer = await broker.enter(mqtt.V4, b"suite-ear")
    ear_writer.write(mqtt.subscribe(mqtt.V4, [b"#"]))
    many = []
    for level in (mqtt.V4, mqtt.V5):
        for name, data in mqtt.faulty(level):
            hello = mqtt.connect(level, b"suite-" + str(len(many)).encode(), USER, broker.key)
            doing = send(broker, hello + data, end=name in mqtt.STAYS_OPEN)
            many.append(broker.judged(f"MQTT level {level}, {name}", doing))
        twice = mqtt.connect(level, b"suite-twice", USER, broker.key) * 2
        many.append(broker.judged(f"MQTT level {level}, CONNECT twice", send(broker, twice)))
        for name, data in mqtt.faulty_connects(level, USER, broker.key):
            many.append(broker.judged(f"MQTT level {level}, {name}", refused(data)))
        for odd in (b"#", b"+/a", b"$share/g/x", b"$SYS", b"a/b/../c", b"'; --", "ü😀".encode()):
            hello = mqtt.connect(level, odd, USER, broker.key)
            publish = mqtt.publish(level, b"suite/odd", b"x", qos=1)
            many.append(broker.judged(f"client id {odd}", send(broker, hello + publish, end=True)))
    await asyncio.gather(*many)
    ear_writer.write_eof()
    heard = await until_closed(ear, ear_writer)
    if b"suite/odd" not in heard:
        broker.faults.append("a good message was not delivered")
    broker.faults.extend(f"delivered to {topic}" for topic in mqtt.WRONG_TOPICS if mqtt.text(topic) in heard)
    return f"{len(many)} faults by name"


# === Clients that take what they can ===


async def wills(broker):
    """Large wills of clients that are cut off all at once."""

    async def one(number):
        will = (b"suite/will", b"w" * WILL_BYTES_MAX)
        _, writer = await broker.enter(mqtt.V4, b"suite-will-%d" % number, will=will)
        writer.transport.abort()

    many = [broker.judged("wills", one(number)) for number in range(broker.count(WILL_CLIENTS))]
    await asyncio.gather(*many)
    return f"{len(many)} wills of {WILL_BYTES_MAX} bytes"


async def subscribe_flood(broker):
    """More subscriptions than a client may have; the broker refuses the rest, or the client."""

    async def one(level):
        reader, writer = await broker.enter(level, b"suite-flood-%d" % level)
        many = broker.count(SUBSCRIBES) + SUBSCRIPTIONS_MAX
        try:
            for number in range(many):
                writer.write(mqtt.subscribe(level, [b"suite/flood/%d/+/#" % number], message_id=1 + number % 65535))
                await writer.drain()
            writer.write_eof()
        except (ConnectionError, RuntimeError):
            pass
        granted = (await until_closed(reader, writer)).count(b"\x90\x03" if level == mqtt.V4 else b"\x90\x04")
        if granted > many:
            raise Fault(f"{granted} answers to {many} requests")

    await asyncio.gather(*(broker.judged("flood of subscriptions", one(level)) for level in (mqtt.V4, mqtt.V5)))
    packed = [b"suite/flood/%d" % number for number in range(SUBSCRIPTIONS_MAX * 5)]
    hello = mqtt.connect(mqtt.V4, b"suite-packed", USER, broker.key)
    await broker.judged("packed subscriptions", refuses_some(broker, hello + mqtt.subscribe(mqtt.V4, packed)))
    return f"{broker.count(SUBSCRIBES) + SUBSCRIPTIONS_MAX} SUBSCRIBEs of two clients, {len(packed)} filters in one"


async def refuses_some(broker, data):
    heard = await send(broker, data, end=True)
    answer = heard[4:]
    if answer[:1] == b"\x90" and answer.count(b"\x80") < SUBSCRIPTIONS_MAX:
        raise Fault("all was granted")


async def stuck_reader(broker):
    """A client that subscribes and never reads: it is cut off."""

    async def one():
        _, stuck = await broker.enter(mqtt.V4, b"suite-stuck", keep_alive=0)
        stuck.transport.pause_reading()
        stuck.write(mqtt.subscribe(mqtt.V4, [b"suite/stuck"]))
        _, speaker = await broker.enter(mqtt.V4, b"suite-speaker")
        data = mqtt.publish(mqtt.V4, b"suite/stuck", b"x" * 65_000)
        for _ in range(broker.count(STUCK_BYTES) // len(data) + 300):
            speaker.write(data)
            await asyncio.wait_for(speaker.drain(), PATIENCE_SECONDS * 2)
        speaker.write(mqtt.packet(mqtt.DISCONNECT))
        started = time.monotonic()
        while "suite-stuck" in await asyncio.to_thread(broker.clients):
            if time.monotonic() - started > PATIENCE_SECONDS * 2:
                raise Fault(f"the reader is still there after {PATIENCE_SECONDS * 2} s")
            await asyncio.sleep(0.5)
        stuck.transport.abort()
        speaker.transport.abort()

    await broker.judged("stuck reader", one())
    return "a reader that never reads was cut off"


# === The others ===


class Pair:
    """mosquitto_pub and mosquitto_sub: the time from one to the other."""

    def __init__(self, broker):
        login = ["-h", "127.0.0.1", "-p", str(broker.port), "-u", USER.decode(), "-P", broker.key.decode(), "-t", "suite/pair"]
        # A retained message is the sign that it listens.
        subprocess.run(["mosquitto_pub", *login, "-r", "-m", "ready"], check=True, timeout=PATIENCE_SECONDS)
        self.ear = subprocess.Popen(["mosquitto_sub", *login], stdout=subprocess.PIPE, text=True)
        self.ear.stdout.readline()
        self.mouth = subprocess.Popen(["mosquitto_pub", *login, "-l"], stdin=subprocess.PIPE, text=True)

    def beat(self):
        """Seconds until a line that the one says is heard from the other."""
        line = f"{time.monotonic()}\n"
        started = time.monotonic()
        self.mouth.stdin.write(line)
        self.mouth.stdin.flush()
        if self.ear.stdout.readline() != line:
            raise Fault("another message came")
        return time.monotonic() - started

    async def measure(self, seconds):
        until, found = time.monotonic() + seconds, []
        while time.monotonic() < until:
            found.append(await asyncio.wait_for(asyncio.to_thread(self.beat), PATIENCE_SECONDS))
            await asyncio.sleep(0.05)
        found.sort()
        return found

    def end(self):
        for process in (self.ear, self.mouth):
            process.kill()
            process.wait()


def described(latencies):
    ms = [round(latencies[int(len(latencies) * part)] * 1000, 1) for part in (0.5, 0.99)]
    return f"{len(latencies)} messages, median {ms[0]} ms, 99% {ms[1]} ms, longest {latencies[-1] * 1000:.1f} ms"


async def silent(broker, ended):
    """A client that never finishes CONNECT, and comes again when it is cut off; drops a byte now and then."""
    hello = mqtt.connect(mqtt.V4, b"suite-silent", USER, broker.key)
    while not ended.is_set():
        reader, writer = await broker.dial()
        try:
            writer.write(hello[: broker.random.randrange(len(hello) - 1)])
            await until_closed(reader, writer)
        except ConnectionError:
            pass


async def never_connect(broker):
    """Many clients that never finish CONNECT, while a pair goes on."""
    pair = Pair(broker)
    try:
        before = await pair.measure(3)
        ended = asyncio.Event()
        many = [asyncio.create_task(broker.judged_at_once("never CONNECT", silent(broker, ended))) for _ in range(broker.count(SILENT_CLIENTS))]
        await asyncio.sleep(1)
        during = await pair.measure(12)
        ended.set()
        await asyncio.gather(*many)
    finally:
        pair.end()
    print("  alone:", described(before))
    print(f"  beside {len(many)} clients that never finish CONNECT:", described(during))
    if during[-1] > LATENCY_SECONDS_MAX:
        broker.faults.append(f"the others waited {during[-1]:.1f} s")
    return "well-behaved clients went on"


async def run(broker):
    sections = [garbage, mutated, faults_by_name, wills, subscribe_flood, never_connect, stuck_reader]
    for section in sections:
        started = time.monotonic()
        said = await section(broker)
        print(f"{said} ({time.monotonic() - started:.0f} s)", flush=True)
    return broker.faults


def main(*arguments):
    faults = asyncio.run(run(Broker(*arguments)))
    if faults:
        sys.exit("\n".join(sorted(set(faults))[:40]))


if __name__ == "__main__":
    main(*sys.argv[1:])
