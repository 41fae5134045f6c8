"""A service on a real mosquitto, seen from outside."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from alicia_sdk import CallFailed, CallTimeout, CommandError, Message, Service
from alicia_sdk.link import QUEUE_MAX

from .bus import TOKEN, Broker, Observer, free_port, wait_until
from .conftest import MakeService

HEARTBEAT = "alicia/system/health/thermostat"
COMMAND = "alicia/thermostat/command"


def started(service: Service) -> Service:
    service.start()
    wait_until(lambda: service.is_connected, "the service to connect")
    return service


def test_it_registers_and_beats(observer: Observer, make_service: MakeService) -> None:
    service = make_service(version="1.2.0", instance="i-1", labels={"room": "hall"}, capabilities=["heat"])
    service.command("set")(lambda target: target)
    service.count("readings", 3)
    started(service)
    registration = observer.wait("alicia/system/discovery/register")
    assert registration.envelope["source"] == "thermostat"
    assert registration.envelope["message_type"] == "event"
    assert {name: registration.payload[name] for name in ("service", "instance", "version", "lease_s")} == {
        "service": "thermostat",
        "instance": "i-1",
        "version": "1.2.0",
        "lease_s": 30.0,
    }
    assert registration.payload["labels"] == {"room": "hall"}
    assert registration.payload["capabilities"] == [{"name": "heat"}]
    assert registration.payload["endpoints"] == {"mqtt": "alicia/thermostat/i-1/command"}
    assert registration.payload["metadata"]["commands"]["set"] == ["target"]
    beat = observer.wait(HEARTBEAT).payload
    assert (beat["status"], beat["interval_s"]) == ("healthy", 5.0)
    assert beat["counters"]["readings"] == 3
    assert beat["resources"]["memory_bytes"] > 1 << 20 and beat["resources"]["cpu"] == 0
    # Without being asked again.
    later = observer.wait(HEARTBEAT, lambda one: one.payload["uptime_s"] > beat["uptime_s"] + 4).payload
    assert 0 < later["resources"]["cpu"] < 1


def test_it_answers_a_health_check_that_means_it(observer: Observer, make_service: MakeService) -> None:
    started(make_service())
    observer.wait(HEARTBEAT)
    for check in ({}, {"services": ["thermostat"]}, b"{}"):
        before = len(observer.on(HEARTBEAT))
        observer.send("alicia/system/health/check", check)
        wait_until(lambda: len(observer.on(HEARTBEAT)) > before, "an answer", 3)
    before = len(observer.on(HEARTBEAT))
    observer.send("alicia/system/health/check", {"services": ["another"]})
    observer.send("alicia/system/health/check", {"services": 7})
    # The answer to the ping comes after the answers to the checks would have come.
    observer.command("thermostat", "ping")
    assert len(observer.on(HEARTBEAT)) == before


def test_commands_are_answered(observer: Observer, make_service: MakeService) -> None:
    service = make_service()

    @service.command("set")
    def set_target(target: float) -> dict[str, float]:
        return {"target": target}

    @service.command()
    def break_down() -> None:
        raise RuntimeError("the reason is for the log")

    @service.command()
    def refuse() -> None:
        raise CommandError("too warm", code="thermostat.too_warm", status=409)

    @service.command()
    def unsendable() -> object:
        return object()

    started(service)
    answer = observer.command("thermostat", "set", {"target": 21})
    assert (answer.envelope["message_type"], answer.payload) == ("response", {"target": 21.0})
    assert (answer.envelope["source"], answer.envelope["destination"]) == ("thermostat", "observer")
    assert observer.command("thermostat", "ping").payload["service"] == "thermostat"
    assert "break-down" in observer.command("thermostat", "status").payload["commands"]

    def check(command: str, arguments: Any, code: str, status: int, detail: str) -> dict[str, Any]:
        answer = observer.command("thermostat", command, arguments)
        problem: dict[str, Any] = answer.payload
        assert answer.envelope["message_type"] == "error"
        assert (problem["code"], problem["status"]) == (code, status)
        assert detail in problem["detail"]
        assert problem["type"] == f"/docs/errors/{code}"
        return problem

    check("sett", {}, "service.unknown_command", 404, "break-down, ping, refuse, set, status, unsendable")
    problem = check("set", {"target": "warm"}, "service.invalid_arguments", 422, "set: ")
    assert problem["faults"] == [
        {"pointer": "/arguments/target", "message": "found the text 'warm', expected a number"}
    ]
    assert "reason" not in check("break-down", {}, "service.failed", 500, "RuntimeError")["detail"]
    check("refuse", None, "thermostat.too_warm", 409, "too warm")
    check("unsendable", None, "service.failed", 500, "cannot be sent")
    assert observer.command("thermostat", "ping").envelope["message_type"] == "response"


def test_mqtt5_properties_carry_a_bare_command(observer: Observer, make_service: MakeService) -> None:
    started(make_service())
    observer.send(COMMAND, {"command": "ping"}, response_topic="my/replies", correlation_data=b"\x00\xff")
    answer = observer.wait("my/replies")
    assert answer.correlation_data == b"\x00\xff"
    assert answer.payload["service"] == "thermostat"


def test_a_capability_is_registered_and_checked(observer: Observer, make_service: MakeService) -> None:
    service = make_service(instance="i-1")
    limits = {"type": "object", "properties": {"celsius": {"type": "number", "maximum": 30}}, "required": ["celsius"]}

    @service.capability("heat", version="2.1.0", tags=["warm"], input=limits, cost_usd=0.5)
    def heat(celsius: float) -> dict[str, float]:
        """Heats the room.

        Not above 30 degrees.
        """
        return {"target": celsius}

    @service.capability()
    def cool_down(by: int = 1) -> str:
        return f"cooler by {by}"

    started(service)
    registered = observer.wait("alicia/system/discovery/register").payload["capabilities"]
    assert registered[0] == {
        "name": "heat",
        "version": "2.1.0",
        "description": "Heats the room.",
        "input_schema": limits,
        "output_schema": {"type": "object", "additionalProperties": {"type": "number"}},
        "tags": ["warm"],
        "cost_usd": 0.5,
    }
    assert registered[1]["name"] == "cool-down"
    assert registered[1]["input_schema"] == {
        "type": "object",
        "properties": {"by": {"type": "integer"}},
        "required": [],
        "additionalProperties": False,
    }
    assert observer.command("thermostat", "heat", {"celsius": 21}).payload == {"target": 21}
    # Asked alone, on the topic of the instance.
    assert observer.command("thermostat/i-1", "cool-down").payload == "cooler by 1"
    refused = observer.command("thermostat", "heat", {"celsius": 31})
    assert refused.envelope["message_type"] == "error"
    assert refused.payload["code"] == "service.invalid_arguments"
    assert refused.payload["faults"] == [{"pointer": "/arguments/celsius", "message": "found 31, expected 30 or less"}]
    with pytest.raises(ValueError, match="cannot name a capability"):
        make_service(instance="i-2").capability("Heat it")


def test_the_instances_of_a_service_share_its_command_topic(observer: Observer, make_service: MakeService) -> None:
    done: list[str] = []
    for name in ("i-1", "i-2", "i-3"):
        service = make_service(instance=name)

        def work(number: int, name: str = name) -> str:
            done.append(f"{number}")
            return name

        service.capability("work")(work)
        started(service)
    answered = {observer.command("thermostat", "work", {"number": number}).payload for number in range(30)}
    assert sorted(done, key=int) == [f"{number}" for number in range(30)]
    assert len(answered) > 1, "one instance did everything"
    for name in ("i-1", "i-2", "i-3"):
        assert observer.command(f"thermostat/{name}", "work", {"number": 99}).payload == name


def test_what_is_not_a_command_is_answered_or_dropped(observer: Observer, make_service: MakeService) -> None:
    own = "alicia/thermostat/i-1/command"
    observer.send(own, {"command": "set"}, retain=True, response_topic="my/replies")
    service = make_service(instance="i-1")
    done: list[float] = []
    service.command("set")(lambda: done.append(1))
    started(service)
    observer.send(COMMAND, {"commando": "set"}, response_topic="my/replies")
    assert observer.wait("my/replies").payload["faults"][0]["pointer"] == "/command"
    # A forged answer, and a caller that wants a heartbeat forged.
    stale = {"message_id": "1", "timestamp": time.time(), "source": "x", "message_type": "response", "payload": {}}
    observer.send(COMMAND, stale)
    observer.send(COMMAND, {"command": "ping"}, response_topic="alicia/system/health/other")
    observer.send("alicia/system/health/check", {})
    expected = {"dropped_retained_command": 1, "dropped_not_a_command": 1, "dropped_bad_reply_topic": 1}

    def counted() -> bool:
        counters = observer.command("thermostat", "status").payload["counters"]
        return all(counters.get(name) == count for name, count in expected.items())

    wait_until(counted, "the drops to be counted")
    assert done == [] and observer.on("alicia/system/health/other") == []
    observer.send(own, b"", retain=True)


def test_events_arrive_in_order_with_or_without_envelope(observer: Observer, make_service: MakeService) -> None:
    service = make_service()
    heard: list[Message] = []

    @service.on("rooms/+/temperature")
    def hear(message: Message) -> None:
        heard.append(message)
        if message.payload == 3:
            raise RuntimeError("a handler that fails ends nothing")

    started(service)
    observer.command("thermostat", "ping")
    for number in range(50):
        observer.send("alicia/rooms/hall/temperature", number)
    wait_until(lambda: len(heard) == 50, "all messages")
    assert [message.payload for message in heard] == list(range(50))
    assert (heard[0].topic, heard[0].source, heard[0].type) == ("rooms/hall/temperature", None, "event")
    service.publish("rooms/bath/temperature", {"value": 1})
    wait_until(lambda: len(heard) == 51, "its own event")
    assert (heard[50].source, heard[50].payload) == ("thermostat", {"value": 1})
    assert observer.wait("alicia/rooms/bath/temperature").envelope["destination"] == "broadcast"
    assert observer.command("thermostat", "status").payload["counters"]["handler_errors"] == 1


def test_bad_messages_are_dropped_and_counted(observer: Observer, make_service: MakeService) -> None:
    service = make_service()
    heard: list[Any] = []
    service.on("inbox")(lambda message: heard.append(message.payload))
    started(service)
    observer.command("thermostat", "ping")
    old = {"message_id": "1", "timestamp": 1.0, "source": "x", "message_type": "event", "payload": 1}
    observer.send("alicia/inbox", {**old, "ttl": 5})
    observer.send("alicia/inbox", b"\xff\x00 not json")
    observer.send("alicia/inbox", b"[" * 50_000)
    observer.send("alicia/inbox", b'"' + b"x" * (1 << 20) + b'"')
    observer.send("alicia/inbox", {**old, "routing": {"hops": 99}})
    observer.send("alicia/thermostat/replies/none", {})
    observer.send("alicia/inbox", "the last")
    wait_until(lambda: heard, "the good message")
    counters = observer.command("thermostat", "status").payload["counters"]
    assert heard == ["the last"]
    assert counters["dropped_expired"] == 1
    assert counters["dropped_not_an_envelope"] == 2
    assert counters["dropped_too_large"] == 1
    assert counters["dropped_too_many_hops"] == 1


def test_a_repeated_message_is_taken_once(observer: Observer, make_service: MakeService) -> None:
    service = make_service()
    heard: list[tuple[str, Any]] = []
    service.on("rooms/#")(lambda message: heard.append(("all", message.payload)))
    service.on("rooms/+/temperature")(lambda message: heard.append(("some", message.payload)))
    service.command("toggle")(lambda: heard.append(("toggled", None)))
    started(service)
    message = {"message_id": "m-1", "timestamp": time.time(), "source": "x", "message_type": "event", "payload": 21}
    command = {**message, "message_id": "m-2", "message_type": "command", "payload": {"command": "toggle"}}
    for _ in range(3):
        observer.send("alicia/rooms/hall/temperature", message)
        observer.send(COMMAND, command)
    observer.send("alicia/rooms/end", "bare")
    wait_until(lambda: ("all", "bare") in heard, "the last message")
    wait_until(lambda: ("toggled", None) in heard, "the command")
    assert sorted(heard, key=str) == [("all", "bare"), ("all", 21), ("some", 21), ("toggled", None)]
    assert observer.command("thermostat", "status").payload["counters"]["messages_repeated"] >= 4


def test_a_full_queue_is_said_and_counted(
    broker: Broker, make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    service = make_service()
    service.start()
    taken = [service.publish("flood", number) for number in range(QUEUE_MAX + 5)]
    assert taken.count(True) == QUEUE_MAX and not any(taken[QUEUE_MAX:])
    assert caplog.text.count("the queue to the bus is full") == 1
    broker.start()
    late = Observer(broker)
    beat = late.wait(HEARTBEAT, lambda one: one.payload["counters"].get("messages_refused") == 5)
    assert beat.payload["status"] == "healthy"
    late.close()


def test_a_state_is_retained(observer: Observer, broker: Broker, make_service: MakeService) -> None:
    service = started(make_service())
    assert service.publish("thermostat/target", {"value": 21}, retain=True)
    observer.wait("alicia/thermostat/target")
    late = Observer(broker)
    kept = late.wait("alicia/thermostat/target")
    late.close()
    assert kept.retained and kept.payload == {"value": 21}
    for topic in ("a/+", "", "#"):
        with pytest.raises(ValueError):
            service.publish(topic, 1)
    with pytest.raises(ValueError):
        service.publish("a", float("inf"))


def test_services_call_each_other(make_service: MakeService) -> None:
    thermostat, caller = make_service(), make_service("caller")
    gate = threading.Event()
    thermostat.command("set")(lambda target: {"was": target})
    thermostat.command("sleep")(lambda: gate.wait(20))
    started(thermostat)
    started(caller)
    assert caller.call("thermostat", "set", {"target": 5}) == {"was": 5}
    with pytest.raises(CallFailed) as failed:
        caller.call("thermostat", "set", {"colour": 5})
    assert failed.value.problem.code == "service.invalid_arguments"
    assert {fault.pointer for fault in failed.value.problem.faults} == {"/arguments/colour", "/arguments/target"}
    with pytest.raises(CallTimeout):
        caller.call("thermostat", "sleep", timeout=0.2)
    with pytest.raises(CallTimeout):
        caller.call("nobody", "ping", timeout=0.2)
    gate.set()


def test_a_tick_is_never_run_twice_at_once(make_service: MakeService) -> None:
    service = make_service()
    gate, running, ended = threading.Event(), threading.Semaphore(1), threading.Event()
    overlaps: list[int] = []
    ticks: list[int] = []

    @service.every(0.02)
    def tick() -> None:
        if not running.acquire(blocking=False):
            overlaps.append(1)
        gate.wait(20)
        running.release()
        ticks.append(1)
        if len(ticks) > 3:
            ended.set()
        raise RuntimeError("a tick that fails comes again")

    started(service)
    gate.set()
    assert ended.wait(15)
    assert overlaps == []


def test_hung_handlers_stop_neither_heartbeat_nor_stop(observer: Observer, make_service: MakeService) -> None:
    service = make_service(workers=2)
    never, hung = threading.Event(), threading.Semaphore(0)

    @service.command()
    def hang() -> None:
        hung.release()
        never.wait(60)

    started(service)
    for _ in range(300):
        observer.send(COMMAND, {"command": "hang"}, response_topic="busy/replies")
    assert hung.acquire(timeout=15) and hung.acquire(timeout=15)
    assert observer.wait("busy/replies").payload["code"] == "service.busy"
    observer.wait(HEARTBEAT, lambda one: one.payload["status"] == "degraded")
    begun = time.monotonic()
    service.stop(drain_s=0.5)
    assert time.monotonic() - begun < 4
    observer.wait(HEARTBEAT, lambda one: one.payload["status"] == "stopping")
    never.set()


def test_it_comes_back_after_the_bus_with_a_new_token(
    broker: Broker, make_service: MakeService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    service = Service("thermostat", url=broker.url, token_file=str(token))
    heard: list[Any] = []
    service.on("inbox")(lambda message: heard.append(message.payload))
    try:
        started(service)
        broker.stop()
        wait_until(lambda: not service.is_connected, "the service to notice")
        assert service.publish("while/away", {"kept": True})
        broker.set_password("thermostat", "the-second-token")
        broker.start()
        second = Observer(broker)
        wait_until(lambda: "refused the connection" in caplog.text, "the old token to be refused")
        token.write_text("the-second-token\n")
        second.wait("alicia/system/discovery/register")
        second.wait(HEARTBEAT, lambda one: one.payload["status"] == "healthy")
        assert second.wait("alicia/while/away").payload == {"kept": True}
        second.send("alicia/inbox", 1)
        wait_until(lambda: heard == [1], "its subscriptions to be back")
        second.close()
    finally:
        service.stop()
    assert TOKEN not in caplog.text and "the-second-token" not in caplog.text
    assert str(broker.port) not in caplog.text, "the URL of the bus was logged"


def test_health_over_http(broker: Broker, make_service: MakeService) -> None:
    def get(path: str = "/health") -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    port = free_port()
    broker.stop()
    service = make_service(port=port, version="3.0.0")
    service.start()
    status, body = get()
    assert (status, body["status"]) == (503, "starting")
    broker.start()
    wait_until(lambda: service.is_connected, "the service to connect")
    status, body = get()
    assert (status, body["status"], body["version"]) == (200, "healthy", "3.0.0")
    assert get("/other")[0] == 404
    service.set_health("unhealthy", "the boiler is cold")
    status, body = get()
    assert (status, body["status"], body["detail"]) == (503, "unhealthy", "the boiler is cold")
    service.set_health("healthy")
    broker.stop()
    wait_until(lambda: not service.is_connected, "the service to notice")
    assert (get()[0], get()[1]["status"]) == (200, "degraded")


def test_the_same_port_twice_is_said_in_words(make_service: MakeService) -> None:
    port = free_port()
    make_service(port=port).start()
    with pytest.raises(Exception, match=f"PORT: cannot listen on 127.0.0.1:{port}"):
        make_service("caller", port=port).start()
