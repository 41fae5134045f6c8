"""The parts that need no bus: envelope, topics, arguments, settings, pool."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

from alicia_sdk import ConfigurationError, Message, Service
from alicia_sdk.arguments import ArgumentFaults, Signature
from alicia_sdk.declaration import Declaration, Listener
from alicia_sdk.engine import Engine
from alicia_sdk.envelope import ID_BYTES_MAX, MESSAGE_BYTES_MAX, Address, Dropped, read, write
from alicia_sdk.pool import Job, Pool
from alicia_sdk.problem import Fault
from alicia_sdk.schema import faults
from alicia_sdk.settings import Options, Settings
from alicia_sdk.topics import filter_matches, is_filter, is_topic, takes_replies
from alicia_sdk.vitals import Vitals

NOW = 1_001.0
ENVELOPE = {
    "message_id": "0190",
    "timestamp": 1_000.5,
    "source": "api",
    "message_type": "event",
    "payload": {"x": 1},
}


def envelope(**changes: Any) -> bytes:
    return json.dumps({**ENVELOPE, **changes}).encode()


def test_what_is_written_is_read_back() -> None:
    data = write("api", {"x": 1}, Address("request", "other", 5.0, "c-1", "alicia/api/replies/1"))
    received = read(data, time.time())
    assert received.payload == {"x": 1}
    assert received.field("source") == "api"
    assert received.field("destination") == "other"
    assert received.field("reply_to") == "alicia/api/replies/1"
    assert "ttl" not in (read(write("api", None), NOW).envelope or {})


@pytest.mark.parametrize("data, payload", [(b"21.5", 21.5), (b'{"payload": 1}', {"payload": 1}), (b"null", None)])
def test_a_bare_payload_is_taken(data: bytes, payload: Any) -> None:
    received = read(data, NOW)
    assert received.envelope is None
    assert received.payload == payload


@pytest.mark.parametrize(
    "data, reason",
    [
        (b" " * (MESSAGE_BYTES_MAX + 1), "too-large"),
        (b"", "not-an-envelope"),
        (b"\xff", "not-an-envelope"),
        (b"{", "not-an-envelope"),
        (b"NaN", "not-an-envelope"),
        (b"1e999", "not-an-envelope"),
        (b"[" * 100_000, "not-an-envelope"),
        (b"9" * 100_000, "not-an-envelope"),
        (envelope(timestamp="now"), "not-an-envelope"),
        (envelope(timestamp=True), "not-an-envelope"),
        (envelope(message_type="shout"), "not-an-envelope"),
        (envelope(message_type=["event"]), "not-an-envelope"),
        (envelope(source=None), "not-an-envelope"),
        (envelope(priority="urgent"), "not-an-envelope"),
        (envelope(routing={"hops": -1}), "not-an-envelope"),
        (envelope(reply_to=7), "not-an-envelope"),
        (envelope(correlation_id=7), "not-an-envelope"),
        (envelope(correlation_id="x" * (ID_BYTES_MAX + 1)), "not-an-envelope"),
        (envelope(message_id="ä" * (ID_BYTES_MAX // 2 + 1)), "not-an-envelope"),
        (envelope(ttl=0.4), "expired"),
        (envelope(routing={"hops": 11}), "too-many-hops"),
        (envelope(routing={"hops": 3, "max_hops": 2}), "too-many-hops"),
    ],
)
def test_what_must_be_dropped_is_dropped(data: bytes, reason: str) -> None:
    with pytest.raises(Dropped) as dropped:
        read(data, NOW)
    assert dropped.value.reason == reason


def test_a_message_at_its_limits_is_taken() -> None:
    read(b'"' + b"x" * (MESSAGE_BYTES_MAX - 2) + b'"', NOW)
    read(envelope(ttl=0.5, routing={"hops": 10}, unknown="field"), NOW)
    read(envelope(ttl=1e308), NOW)
    read(envelope(message_id="x" * ID_BYTES_MAX, correlation_id="\ud800"), NOW)


@pytest.mark.parametrize("payload", [float("nan"), object(), {1, 2}, "x" * MESSAGE_BYTES_MAX])
def test_what_cannot_travel_is_not_written(payload: Any) -> None:
    with pytest.raises(ValueError):
        write("api", payload)


@pytest.mark.parametrize(
    "text, topic, matches",
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("+", "/a", False),
        ("+/+", "/a", True),
    ],
)
def test_filters_match_as_mqtt_says(text: str, topic: str, matches: bool) -> None:
    assert filter_matches(text, topic) is matches


def test_topics_and_filters_are_told_apart() -> None:
    assert is_topic("a/b") and not is_topic("a/+") and not is_topic("") and not is_topic("a\0") and not is_topic("x" * 1_025)
    assert not is_topic("\ud800")
    assert is_filter("a/+/#") and not is_filter("a/b+") and not is_filter("#/a") and not is_filter("a#")


@pytest.mark.parametrize(
    "topic, allowed",
    [
        ("alicia/caller/replies/1", True),
        ("alicia/keys/tom/replies/cli", True),
        ("alicia/system/replies/registry/r1", True),
        ("answers", False),
        ("alicia/a/repliesx", False),
        ("alicia/rooms/hall/light", False),
        ("alicia/system/health/thermostat", False),
        ("alicia/other/command", False),
        ("alicia/+/replies", False),
        ("$SYS/x", False),
        ("", False),
    ],
)
def test_a_caller_cannot_make_the_service_speak_anywhere(topic: str, allowed: bool) -> None:
    assert takes_replies("alicia", [], topic) is allowed


@pytest.mark.parametrize(
    "senders, topic, allowed",
    [
        (["key/tom"], "alicia/keys/tom/replies/cli", True),
        (["key/tom"], "alicia/keys/ann/replies/cli", False),
        (["key/tom"], "alicia/keys/tom/replies", False),
        (["key/tom"], "alicia/system/replies/health/x", False),
        (["key/tom", "api"], "alicia/api/replies/1", True),
        (["system/registry"], "alicia/system/replies/registry/r1", True),
        (["api"], "alicia/api-2/replies/1", False),
        (["api"], "elsewhere/replies/1", True),
    ],
)
def test_nobody_is_answered_on_the_reply_topic_of_another(senders: list[str], topic: str, allowed: bool) -> None:
    assert takes_replies("alicia", senders, topic) is allowed


def test_who_runs_it_by_hand_speaks_as_the_key() -> None:
    url = {"ALICIA_MQTT_URL": "mqtt://127.0.0.1"}
    own = Settings.read(Options(name="api", instance="1", password="x"), url).topics
    assert (own.source, own.replies) == ("api", "alicia/api/replies/1")
    key = Settings.read(Options(name="api", instance="1", username="tom", password="x"), url).topics
    assert (key.source, key.replies) == ("key/tom", "alicia/keys/tom/replies/1")


def typed(target: float, mode: Optional[str] = None, days: List[int] = [], more: Dict[str, bool] = {}) -> None: ...


def open_ended(message: Message, **rest: Any) -> None: ...


MESSAGE = Message("thermostat/command", {})


@pytest.mark.parametrize(
    "arguments, bound",
    [
        ({"target": 21}, {"target": 21.0}),
        ({"target": 21.5, "mode": None}, {"target": 21.5, "mode": None}),
        ({"target": 1, "days": [1, 2.0]}, {"target": 1.0, "days": [1, 2]}),
    ],
)
def test_arguments_become_parameters(arguments: Any, bound: dict[str, Any]) -> None:
    assert Signature(typed).bind(arguments, MESSAGE) == bound


@pytest.mark.parametrize(
    "arguments, pointers",
    [
        (None, ["/arguments/target"]),
        ([1], ["/arguments"]),
        ({"target": "warm"}, ["/arguments/target"]),
        ({"target": True, "mode": 1}, ["/arguments/target", "/arguments/mode"]),
        ({"target": 1, "days": [1, "x"]}, ["/arguments/days/1"]),
        ({"target": 1, "more": {"a/b": 1}}, ["/arguments/more/a~1b"]),
        ({"target": 1, "colour": 1}, ["/arguments/colour"]),
        ({"target": 10**400}, ["/arguments/target"]),
    ],
)
def test_every_fault_of_the_arguments_is_named(arguments: Any, pointers: list[str]) -> None:
    with pytest.raises(ArgumentFaults) as faults:
        Signature(typed).bind(arguments, MESSAGE)
    assert [fault.pointer for fault in faults.value.faults] == pointers


def test_a_handler_may_take_the_message_and_anything() -> None:
    assert Signature(open_ended).bind({"x": 1}, MESSAGE) == {"message": MESSAGE, "x": 1}
    with pytest.raises(ArgumentFaults):
        Signature(open_ended).bind({"message": "forged"}, MESSAGE)


SUPERVISED = {
    "ALICIA_SERVICE": "api",
    "ALICIA_INSTANCE": "01j0000000000000000000000x",
    "ALICIA_SLOT": "2",
    "ALICIA_EPOCH": "7",
    "ALICIA_MQTT_URL": "mqtt://127.0.0.1:1884",
    "ALICIA_MQTT_USERNAME": "api",
    "ALICIA_TOPIC_PREFIX": "home",
    "PORT": "8080",
}


def test_a_supervised_instance_reads_its_environment(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    settings = Settings.read(Options(name="written-in-the-code"), {**SUPERVISED, "ALICIA_TOKEN_FILE": str(token)})
    assert (settings.service, settings.epoch, settings.slot, settings.port) == ("api", 7, 2, 8080)
    assert (settings.host, settings.mqtt_port, settings.username) == ("127.0.0.1", 1884, "api")
    assert settings.topics.heartbeat == "home/system/health/api"
    assert settings.credentials.read() == "first"
    token.write_text("second\n")
    assert settings.credentials.read() == "second"
    token.write_text("")
    with pytest.raises(ValueError):
        settings.credentials.read()
    assert "second" not in repr(settings)


@pytest.mark.parametrize(
    "variable, value, says",
    [
        ("ALICIA_SERVICE", "Bad Name", "'Bad Name' is not an id"),
        ("ALICIA_MQTT_URL", "", "start the service with `alicia up`"),
        ("ALICIA_MQTT_URL", "http://x", "mqtt://HOST:PORT"),
        ("ALICIA_MQTT_URL", "mqtt://x:99999", "mqtt://HOST:PORT"),
        ("ALICIA_EPOCH", "-1", "'-1' is not a number"),
        ("ALICIA_TOPIC_PREFIX", "a/b", "'a/b' is not an id"),
        ("PORT", "http", "'http' is not a number"),
    ],
)
def test_a_wrong_environment_is_refused_in_words(variable: str, value: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Settings.read(Options(), {**SUPERVISED, variable: value})
    assert variable in str(error.value) and says in str(error.value)


def test_the_url_with_a_password_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as error:
        Settings.read(Options(name="api", url="mqtts://api:hunter2@x"), {})
    assert "hunter2" not in str(error.value)
    settings = Settings.read(Options(name="api", url="mqtt://me:hunter%32@x"), {})
    assert (settings.username, settings.credentials.read()) == ("me", "hunter2")
    assert "hunter2" not in repr(settings)


def test_what_cannot_work_is_refused_where_it_is_written() -> None:
    service = Service("api")

    async def waits() -> None: ...

    with pytest.raises(ValueError):
        service.on("a/b+")
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ValueError):
            service.every(seconds)
    with pytest.raises(TypeError):
        service.command("x")(waits)
    with pytest.raises(RuntimeError):
        service.publish("a", 1)
    with pytest.raises(ValueError):
        service.count("energy", -1)


def test_a_refused_subscription_makes_it_degraded(caplog: pytest.LogCaptureFixture) -> None:
    """Mosquitto refuses no subscription, so that the broker's answer is given to the link by hand."""

    class Reason:
        def __init__(self, value: int) -> None:
            self.value = value

    class Client:
        mid = 0
        last = ""

        def subscribe(self, text: str, qos: int) -> tuple[int, int]:
            self.mid += qos
            self.last = text
            return 0, self.mid

    settings = Settings.read(Options(name="api", instance="1", url="mqtt://127.0.0.1"), {})
    declaration = Declaration("1.0.0", "service", 1, [], {}, {})
    declaration.listeners.append(Listener("rooms/#", print))
    engine = Engine(settings, declaration, Vitals())
    link = engine._link
    client = Client()
    link._on_connect(client, None, {}, Reason(0))
    for mid in (1, 2, 4):
        link._on_subscribe(client, None, mid, [Reason(1)])
    # A broker without shared subscriptions is asked for the plain one.
    link._on_subscribe(client, None, 3, [Reason(0x9E)])
    assert client.last == "alicia/api/command"
    link._on_subscribe(client, None, 6, [Reason(1)])
    assert engine.health()[0] == "starting", "it counted as connected before every subscription was answered"
    link._on_subscribe(client, None, 5, [Reason(0x87)])
    assert engine.health() == ("degraded", "may not subscribe to alicia/rooms/#")
    assert "add it to allow.subscribe" in caplog.text


def test_one_lane_keeps_its_order_while_others_go_on() -> None:
    pool = Pool(threads=4, queue_max=100)
    pool.start()
    gate, order = threading.Event(), []
    lane = object()

    def note(number: int) -> Callable[[], None]:
        def run() -> None:
            gate.wait(10)
            order.append(number)

        return run

    for number in range(20):
        assert pool.submit(Job(note(number), lane))
    beside = threading.Event()
    assert pool.submit(Job(beside.set))
    assert beside.wait(10), "a full lane held up the others"
    gate.set()
    assert pool.close(time.monotonic() + 10)
    assert order == list(range(20))


def test_a_full_pool_refuses_and_a_hung_job_does_not_hold_up_the_end() -> None:
    pool = Pool(threads=1, queue_max=1)
    pool.start()
    never, running = threading.Event(), threading.Event()

    def hang() -> None:
        running.set()
        never.wait(30)

    assert pool.submit(Job(hang)) and running.wait(10)
    assert pool.submit(Job(lambda: None)) and pool.is_full
    assert not pool.submit(Job(lambda: None))
    assert not pool.close(time.monotonic() + 0.1)
    assert not pool.submit(Job(lambda: None)), "a closed pool took a job"
    never.set()


def test_a_job_that_fails_does_not_end_its_thread() -> None:
    pool = Pool(threads=1, queue_max=10)
    pool.start()
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("as planned")

    assert pool.submit(Job(fail))
    assert pool.submit(Job(done.set))
    assert done.wait(10)


def test_annotations_become_schemas() -> None:
    def handler(city: str, days: int = 3, tags: Optional[List[str]] = None, more: Any = None) -> Dict[str, float]:
        return {}

    signature = Signature(handler)
    schema = signature.input_schema()
    assert schema["required"] == ["city"]
    assert schema["properties"]["days"] == {"type": "integer"}
    assert schema["properties"]["tags"] == {
        "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]
    }
    assert schema["properties"]["more"] == {}
    assert signature.output_schema() == {"type": "object", "additionalProperties": {"type": "number"}}


def test_what_does_not_fit_a_schema_is_said_with_its_place() -> None:
    item = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "additionalProperties": False}
    schema: Dict[str, Any] = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2, "pattern": "^[a-z]+$"},
            "items": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/item"}},
            "unit": {"enum": ["C", "F"]},
            "a/b": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        },
        "required": ["name"],
        "$defs": {"item": item},
    }

    def check(value: Any, *expected: tuple[str, str]) -> None:
        assert [(fault.pointer, fault.message) for fault in faults(schema, value, "/x")] == list(expected)

    check({"name": "ab", "items": [{"n": 1}], "unit": "C", "a/b": None, "other": 1})
    check({}, ("/x/name", "is missing"))
    check([], ("/x", "found a list, expected an object"))
    check({"name": "A"}, ("/x/name", "found 'A', expected a text of at least 2 characters"),
          ("/x/name", "found 'A', expected a text that matches ^[a-z]+$"))
    check({"name": "ab", "items": [{"n": 0}]}, ("/x/items/0/n", "found 0, expected 1 or more"))
    check({"name": "ab", "items": [{"m": 0}]}, ("/x/items/0/m", "is not known here"))
    check({"name": "ab", "items": [{}, {}, {}]}, ("/x/items", "found 3 items, expected at most 2"))
    check({"name": "ab", "unit": "K"}, ("/x/unit", "found 'K', expected one of 'C', 'F'"))
    check({"name": "ab", "a/b": 1}, ("/x/a~1b", "found 1, expected true or false, or found 1, expected null"))
    # A whole number that came as a float is one; a truth value is not.
    check({"name": "ab", "items": [{"n": 2.0}]})
    check({"name": "ab", "items": [{"n": True}]}, ("/x/items/0/n", "found true, expected a whole number"))


def test_a_schema_that_goes_in_circles_ends() -> None:
    circle = {"$ref": "#"}
    assert faults(circle, 1, "") == [Fault("", "is deeper than 64 levels")]
    assert faults({"const": 1}, True, "") != []
