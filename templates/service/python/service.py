"""{{name}}: greets whoever asks, and tells the bus every ten seconds how often it did."""

from alicia_sdk import Service

service = Service("{{name}}", version="{{version}}")
greeted: list[str] = []

@service.capability("greet")
def greet(name: str = "world") -> dict[str, str]:
    greeted.append(name)
    service.count("greetings")
    return {"text": f"Hello, {name}!"}

@service.every(10)
def tell() -> None:
    service.publish("{{name}}/greeted", {"count": len(greeted)})

if __name__ == "__main__":
    service.run()
