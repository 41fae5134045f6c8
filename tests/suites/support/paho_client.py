"""Says and hears with paho-mqtt, of version 1.6 or 2.

paho_client.py PORT WEBSOCKET_PORT ADMIN_KEY READ_KEY
"""

import sys
import threading

import paho.mqtt.client as mqtt

PATIENCE_SECONDS = 15
IS_OLD = not hasattr(mqtt, "CallbackAPIVersion")
REFUSED = {mqtt.MQTTv311: 0x80, mqtt.MQTTv5: 0x87}


def new_client(protocol, transport, user, key):
    arguments = {"client_id": f"suite-{user}-{protocol}-{transport}", "protocol": protocol, "transport": transport}
    client = mqtt.Client(**arguments) if IS_OLD else mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **arguments)
    client.username_pw_set(user, key)
    return client


def code_of(reason):
    """Integers in 1.6 with MQTT 3.1.1, objects otherwise."""
    return reason if isinstance(reason, int) else reason.value


class Talk:
    """One client: connects, subscribes, and keeps what it hears."""

    def __init__(self, protocol, transport, port, user, key):
        self.heard, self.granted, self.connected = [], None, None
        self.changed = threading.Condition()
        self.client = new_client(protocol, transport, user, key)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = self.on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.wait(lambda: self.connected is not None, "CONNACK")

    def on_connect(self, client, data, flags, reason, *properties):
        self.note("connected", code_of(reason))

    def on_subscribe(self, client, data, message_id, first, *rest):
        # 1.6 with MQTT 3.1.1 gives the granted levels; else the reasons come, before the properties in 1.6.
        codes = first if isinstance(first, (list, tuple)) else rest[0]
        self.note("granted", [code_of(code) for code in codes])

    def on_message(self, client, data, message):
        with self.changed:
            self.heard.append((message.topic, message.payload.decode(), message.qos))
            self.changed.notify_all()

    def note(self, name, value):
        with self.changed:
            setattr(self, name, value)
            self.changed.notify_all()

    def wait(self, condition, what):
        with self.changed:
            if not self.changed.wait_for(condition, PATIENCE_SECONDS):
                sys.exit(f"no {what}; heard {self.heard}")

    def subscribe(self, topic):
        self.granted = None
        self.client.subscribe(topic, 2)
        self.wait(lambda: self.granted is not None, "SUBACK")
        return self.granted[0]

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


def talk(protocol, transport, port, admin_key, read_key):
    speaker = Talk(protocol, transport, port, "admin", admin_key)
    listener = Talk(protocol, transport, port, "reader", read_key)
    assert (speaker.connected, listener.connected) == (0, 0)
    topic = "alicia/suite/paho"
    assert listener.subscribe(topic) == 2
    assert listener.subscribe("elsewhere/#") == REFUSED[protocol], listener.granted
    # 1.6 cannot read every PUBREL of MQTT 5; docs/mqtt-conformance.md tells.
    levels = (0, 1) if protocol == mqtt.MQTTv5 and IS_OLD else (0, 1, 2)
    wanted = [(topic, f"level {level}", level) for level in levels]
    for _, text, level in wanted:
        speaker.client.publish(topic, text, level).wait_for_publish()
    # A read key may not say anything: MQTT 3.1.1 has no word for it, the message must just not arrive.
    listener.client.publish(topic, "forbidden", 1)
    speaker.client.publish(topic, "last", 1)
    # Messages keep their order within a level only (MQTT 5, section 4.6): one of level 2 is heard at its PUBREL.
    wanted.append((topic, "last", 1))
    listener.wait(lambda: len(listener.heard) >= len(wanted), "last message")
    assert sorted(listener.heard) == sorted(wanted), listener.heard
    speaker.end()
    listener.end()
    try:
        refused = Talk(protocol, transport, port, "reader", admin_key)
    except SystemExit:
        refused = None
    assert refused is None or refused.connected != 0, "the key of another name was taken"
    if refused:
        refused.end()


def main(port, websocket_port, admin_key, read_key):
    for protocol, name in ((mqtt.MQTTv311, "3.1.1"), (mqtt.MQTTv5, "5")):
        talk(protocol, "tcp", int(port), admin_key, read_key)
        talk(protocol, "websockets", int(websocket_port), admin_key, read_key)
        print(f"MQTT {name} over TCP and WebSocket: said and heard")


if __name__ == "__main__":
    main(*sys.argv[1:])
