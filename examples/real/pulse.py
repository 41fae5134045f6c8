"""A service of the fleet without any library of Alicia: plain paho-mqtt, 1.6 or 2.x, MQTT 3.1.1, bare JSON.

It asks Redis for a PONG and PostgreSQL for an answer every five seconds, and says on the bus how both are. This is all
that a service must do to be seen: read who it is from the environment, send heartbeats, answer the health check.
"""

import json
import os
import signal
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

INTERVAL_S = 5
PROBE_TIMEOUT_S = 2

SERVICE = os.environ["ALICIA_SERVICE"]
PREFIX = os.environ.get("ALICIA_TOPIC_PREFIX", "alicia")
HEARTBEAT = f"{PREFIX}/system/health/{SERVICE}"
CHECK = f"{PREFIX}/system/health/check"

started = time.monotonic()
counters = {"probes": 0, "probe_failures": 0}
latest = {"health": {"status": "starting"}}
SIGNALS = {signal.SIGTERM, signal.SIGINT}


def token():
    """The token may be another one after a reconnection, so that it is read each time."""
    with open(os.environ["ALICIA_TOKEN_FILE"]) as file:
        return file.read().strip()


def ask(port, question):
    """What a server on this machine says first when it is asked."""
    with socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S) as connection:
        connection.settimeout(PROBE_TIMEOUT_S)
        connection.sendall(question)
        return connection.recv(64)


def probe():
    """Whether both stores answer, as the two fields of a heartbeat that say so."""
    # The SSLRequest of PostgreSQL's protocol: answered with one letter by a server that works.
    questions = {
        "redis": (int(os.environ["REDIS_PORT"]), b"PING\r\n", (b"+PONG",)),
        "postgres": (int(os.environ["POSTGRES_PORT"]), struct.pack("!ii", 8, 80877103), (b"S", b"N")),
    }
    faults = []
    for name, (port, question, answers) in questions.items():
        counters["probes"] += 1
        try:
            answer = ask(port, question)
            fault = None if answer.startswith(answers) else "answers something else"
        except OSError as error:
            fault = str(error)
        if fault:
            counters["probe_failures"] += 1
            faults.append(f"{name}: {fault}")
    return {"status": "degraded", "detail": "; ".join(faults)} if faults else {"status": "healthy"}


def heartbeat(**fields):
    beat = {
        "service": SERVICE,
        "instance": os.environ.get("ALICIA_INSTANCE"),
        "uptime_s": round(time.monotonic() - started, 1),
        "interval_s": INTERVAL_S,
        "counters": counters,
        **fields,
    }
    return json.dumps(beat)


def on_connect(client, _userdata, _flags, reason, *_):
    if reason != 0:
        print(f"the bus refused the connection: {reason}", file=sys.stderr)
        return
    client.subscribe(CHECK, qos=1)
    client.publish(HEARTBEAT, heartbeat(**latest["health"]), qos=1)
    print("connected to the bus")


def on_disconnect(client, *_):
    print("no connection to the bus", file=sys.stderr)
    client.username_pw_set(os.environ["ALICIA_MQTT_USERNAME"], token())


def on_message(client, _userdata, message):
    """Somebody asks all services, or some, for a heartbeat; with an envelope around the question or without."""
    try:
        question = json.loads(message.payload)
        wanted = question.get("payload", question).get("services") or [SERVICE]
    except (ValueError, AttributeError):
        return
    if SERVICE in wanted:
        client.publish(HEARTBEAT, heartbeat(**latest["health"]), qos=1)


def new_client():
    client_id = f"{SERVICE}-{os.environ['ALICIA_INSTANCE']}"
    if hasattr(mqtt, "CallbackAPIVersion"):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id)
    else:
        client = mqtt.Client(client_id=client_id)
    client.on_connect, client.on_disconnect, client.on_message = on_connect, on_disconnect, on_message
    client.username_pw_set(os.environ["ALICIA_MQTT_USERNAME"], token())
    client.will_set(HEARTBEAT, heartbeat(status="offline"), qos=1)
    client.reconnect_delay_set(min_delay=1, max_delay=10)
    return client


def main():
    # Blocked in every thread and fetched below, where nothing is half done.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    latest["health"] = probe()
    client = new_client()
    bus = urlsplit(os.environ["ALICIA_MQTT_URL"])
    client.connect_async(bus.hostname, bus.port or 1883, keepalive=15)
    client.loop_start()
    while signal.sigtimedwait(SIGNALS, INTERVAL_S) is None:
        before, latest["health"] = latest["health"], probe()
        if latest["health"] != before:
            print(*latest["health"].values(), sep=": ")
        if client.is_connected():
            client.publish(HEARTBEAT, heartbeat(**latest["health"]), qos=1)
    if client.is_connected():
        client.publish(HEARTBEAT, heartbeat(status="stopping"), qos=1).wait_for_publish(PROBE_TIMEOUT_S)
    client.on_disconnect = None
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
