"""MQTT packets, as they should be and as they should not."""

CONNECT, CONNACK, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 0x10, 0x20, 0x30, 0x82, 0xA2, 0xC0, 0xE0
V4, V5 = 4, 5

WRONG_TOPICS = (b"#", b"suite/+", b"suite/#", b"su\x00ite", b"suite/\xff\xfe", b"suite/\xed\xa0\x80")

# The broker refuses these without closing; docs/mqtt-conformance.md says so.
STAYS_OPEN = {"topic alias too large", *(f"topic {topic}" for topic in WRONG_TOPICS[:4]), "filter " + repr(b"su\x00ite")}


def number(value):
    """A variable byte integer."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text(value):
    return len(value).to_bytes(2, "big") + value


def packet(first, body=b"", length=None):
    return bytes([first]) + (number(len(body)) if length is None else length) + body


def properties(level, given=b""):
    return number(len(given)) + given if level == V5 else b""


def connect(level, client_id, user, key, will=None, flags=None, keep_alive=60, name=b"MQTT", claims=None):
    """A clean start; `will` is a topic and a payload, `claims` a protocol level that is not the real one."""
    bits = 0xC2 | (0x04 if will else 0) if flags is None else flags
    body = text(name) + bytes([claims or level, bits]) + keep_alive.to_bytes(2, "big") + properties(level) + text(client_id)
    if will:
        body += properties(level) + text(will[0]) + text(will[1])
    return packet(CONNECT, body + text(user) + text(key))


def publish(level, topic, payload, qos=0, message_id=1, given=b"", first=None):
    body = text(topic) + (message_id.to_bytes(2, "big") if qos else b"") + properties(level, given) + payload
    return packet(PUBLISH | qos << 1 if first is None else first, body)


def subscribe(level, filters, message_id=1, qos=0, given=b"", first=SUBSCRIBE):
    body = b"".join(text(one) + bytes([qos]) for one in filters)
    return packet(first, message_id.to_bytes(2, "big") + properties(level, given) + body)


def faulty(level):
    """Name and bytes of packets after which a server has to close the connection (MQTT 3.1.1 and 5, section 4.8 and 4.13)."""
    topic = b"suite/hostile"
    yield "QoS 3", publish(level, topic, b"x", qos=3)
    yield "empty topic", publish(level, b"", b"x")
    for wrong in WRONG_TOPICS:
        yield f"topic {wrong}", publish(level, wrong, b"x")
    yield "message id 0", publish(level, topic, b"x", qos=1, message_id=0)
    yield "topic longer than its packet", packet(PUBLISH, b"\xff\xff" + topic)
    yield "PUBLISH without a body", packet(PUBLISH)
    yield "remaining length of five bytes", packet(PUBLISH, b"x" * 100, length=b"\xff\xff\xff\xff\x7f")
    yield "remaining length of 256 MiB", packet(PUBLISH, b"x" * 100, length=b"\xff\xff\xff\x7f")
    yield "SUBSCRIBE with wrong flags", subscribe(level, [topic], first=0x80)
    yield "SUBSCRIBE without filters", subscribe(level, [])
    yield "SUBSCRIBE with QoS 3", subscribe(level, [topic], qos=3)
    yield "SUBSCRIBE with message id 0", subscribe(level, [topic], message_id=0)
    for wrong in (b"suite/\xff", b"su\x00ite"):
        yield f"filter {wrong}", subscribe(level, [wrong])
    yield "UNSUBSCRIBE without filters", packet(UNSUBSCRIBE, b"\x00\x01" + properties(level))
    yield "reserved type", packet(0x00, b"")
    yield "CONNACK from a client", packet(CONNACK, b"\x00\x00" + properties(level))
    yield "PINGRESP from a client", packet(0xD0)
    yield "PUBREL with wrong flags", packet(0x60, b"\x00\x01")
    if level == V5:
        yield "unknown property", publish(level, topic, b"x", given=b"\x7f\x01")
        yield "property twice", publish(level, topic, b"x", given=b"\x01\x00\x01\x00")
        yield "topic alias 0", publish(level, topic, b"x", given=b"\x23\x00\x00")
        yield "topic alias too large", publish(level, topic, b"x", given=b"\x23\xff\xff")
        yield "subscription id 0", subscribe(level, [topic], given=b"\x0b\x00")
        yield "properties longer than the packet", packet(PUBLISH, text(topic) + b"\x7f")
        yield "AUTH", packet(0xF0, b"\x18\x00")
    else:
        yield "AUTH in MQTT 3.1.1", packet(0xF0)


def faulty_connects(level, user, key):
    """Name and bytes of first packets that have to be refused or cut off."""
    good = b"suite-faulty"
    yield "protocol name", connect(level, good, user, key, name=b"MQTX")
    yield "protocol level 6", connect(level, good, user, key, claims=6)
    yield "protocol level 0xff", connect(level, good, user, key, claims=0xFF)
    yield "reserved flag", connect(level, good, user, key, flags=0xC3)
    yield "will with QoS 3", connect(level, good, user, key, will=(b"suite/w", b"x"), flags=0xDE)
    yield "will to a filter", connect(level, good, user, key, will=(b"suite/#", b"x"))
    yield "will to nothing", connect(level, good, user, key, will=(b"", b"x"))
    yield "will that is too large", packet(CONNECT, connect(level, good, user, key)[2:] + b"x" * (1 << 20))
    yield "wrong key", connect(level, good, user, b"wrong")
    yield "no key", connect(level, good, b"", b"")
    yield "client id that is no UTF-8", connect(level, b"\xff\xfe", user, key)
    yield "client id with a null", connect(level, b"a\x00b", user, key)
    yield "client id of 60,000 bytes", connect(level, b"a" * 60_000, user, key)
    yield "client id of a module of the host", connect(level, b"system-registry", user, key)
    yield "PUBLISH first", publish(level, b"suite/hostile", b"x")
    yield "PINGREQ first", packet(PINGREQ)
    yield "empty CONNECT", packet(CONNECT)
