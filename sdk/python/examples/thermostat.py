"""A thermostat: hears temperatures, takes a target, says every five seconds whether to heat."""

from __future__ import annotations

from alicia_sdk import Message, Service

service = Service("thermostat", version="1.0.0")
state = {"target": 21.0, "measured": 21.0}

@service.command("set")
def set_target(target: float) -> dict[str, float]:
    state["target"] = target
    return state

@service.on("rooms/+/temperature")
def heard(message: Message) -> None:
    state["measured"] = float(message.payload["value"])

@service.every(5)
def tick() -> None:
    service.publish("thermostat/heating", {"on": state["measured"] < state["target"]}, retain=True)

if __name__ == "__main__":
    service.run()
