"""Wrong input for the topics of docs/asyncapi.json, made from the schemas in it.

Each case is judged by what its input is: what cannot fit the schema must be refused; what may fit names only what does
not exist, so that it changes nothing whatever comes of it.
"""

import json
import re
from dataclasses import dataclass

# Fits the pattern of every name, and is the name of nothing.
NO_SUCH = "no-such-name"

# A value for each pattern of the document; a new pattern wants one here.
FITTING = (NO_SUCH, "30s", "1KiB")

# Of every JSON type one.
KINDS = {"null": None, "boolean": True, "integer": 7, "number": 1.5, "string": "seven", "array": [], "object": {}}

# JSON as senders may write it who do not care.
NOT_JSON = {
    "no payload": b"",
    "half an object": b'{"services": [',
    "a word": b"stop",
    "NaN": b"NaN",
    "Infinity in a list": b"[-Infinity]",
    "a number beyond all numbers": b'{"x": 1e999}',
    "two values": b"{} {}",
    "a zero byte": b"\x00",
    "not UTF-8": b'{"reason": "\xff\xfe"}',
    "half a surrogate": b'{"reason": "\\ud800"}',
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"x":' * 20_000 + b"1" + b"}" * 20_000,
}

NUMBERS = (-1, -(10**40), 10**40, 2**64, -1e308, 1e308, 1.5)
TEXTS = ("", "\x00", "../../../etc/passwd", "{{7*7}}", "🔥" * 64, "a" * 100_000)
LONG_LIST = 10_000

# The largest text that still goes through a broker that takes packets of 1 MiB.
HUGE = "h" * ((1 << 20) - 8_192)


@dataclass(frozen=True)
class Case:
    name: str
    payload: bytes
    # Whether the schema rules it out, so that it must be refused.
    wrong: bool = True


class Schemas:
    """The schemas of a document."""

    def __init__(self, document):
        self.document = document

    def of(self, channel):
        """The schema of the payload of what is sent to a channel."""
        (message,) = channel["messages"].values()
        payload = self.plain(message)["payload"]
        return self.plain(payload["allOf"][1]["properties"]["payload"])

    def plain(self, schema):
        """Without references, and without the `null` of what may be left out."""
        while isinstance(schema, dict):
            if "$ref" in schema:
                at = self.document
                for step in schema["$ref"].removeprefix("#/").split("/"):
                    at = at[step]
                schema = at
            elif len(schema.get("allOf", ())) == 1:
                schema = schema["allOf"][0]
            elif some := [one for one in schema.get("anyOf", schema.get("oneOf", ())) if one.get("type") != "null"]:
                schema = some[0]
            else:
                break
        return schema if isinstance(schema, dict) else {}

    def kinds(self, schema):
        """The JSON types that fit; all when nothing is said."""
        if not isinstance(schema, dict):
            return set(KINDS)
        if "$ref" in schema or len(schema.get("allOf", ())) == 1:
            inner = schema["allOf"][0] if "allOf" in schema else None
            return self.kinds(inner if inner is not None else self.plain(schema))
        for either in ("anyOf", "oneOf"):
            if either in schema:
                return set().union(*(self.kinds(one) for one in schema[either]))
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return {next(kind for kind, like in KINDS.items() if type(like) is type(value)) for value in values}
        named = schema.get("type", list(KINDS))
        kinds = {named} if isinstance(named, str) else set(named)
        return kinds | {"integer"} if "number" in kinds else kinds

    def fitting(self, schema):
        """A value that fits and names nothing that exists."""
        schema = self.plain(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        kinds = self.kinds(schema) - {"null"}
        if kinds == set(KINDS) - {"null"} or "object" in kinds:
            return {name: self.fitting(one) for name, one in schema.get("properties", {}).items()}
        if "string" in kinds:
            pattern = schema.get("pattern", "")
            for value in FITTING:
                if re.search(pattern, value):
                    return value
            raise SystemExit(f"verb_cases.py: no value fits the pattern {pattern}: add one to FITTING")
        if "array" in kinds:
            return [self.fitting(schema.get("items", {}))]
        if "integer" in kinds and "number" not in kinds:
            # As far away as can be: no slot and no deployment has this number.
            return schema.get("maximum", 2 ** (32 if schema.get("format") == "uint32" else 63) - 1)
        return 1.5 if "number" in kinds else False


def text(value):
    return json.dumps(value, ensure_ascii=False).encode()


def cases(schemas, schema):
    """Every case of a schema but the huge ones."""
    fitting = schemas.fitting(schema)
    yield from (Case(name, payload) for name, payload in NOT_JSON.items())
    yield Case("what exists nowhere", text(fitting), wrong=False)
    kinds = schemas.kinds(schema)
    for kind in KINDS.keys() - kinds:
        yield Case(f"{kind} in its place", text(KINDS[kind]))
    fields = schemas.plain(schema).get("properties", {})
    if not fields:
        return
    yield Case("its values as a list", text(list(fitting.values())))
    yield Case("itself in a list", text([fitting]))
    for name in schemas.plain(schema).get("required", ()):
        yield Case(f"without {name}", text({key: value for key, value in fitting.items() if key != name}))
    if schemas.plain(schema).get("additionalProperties") is False:
        yield Case("an unknown field", text(fitting | {"no_such_field": 1}))
        yield Case("a name in capitals", text(fitting | {next(iter(fields)).upper(): 1}))
    for name, field in fields.items():
        yield from of_field(schemas, name, field, fitting)


def of_field(schemas, name, field, fitting):
    def with_value(value):
        return text(fitting | {name: value})

    kinds = schemas.kinds(field)
    # Sorted, so that a seed means the same in each run.
    for kind in sorted(KINDS.keys() - kinds):
        yield Case(f"{kind} for {name}", with_value(KINDS[kind]))
    repeated = text(fitting)[:-1] + b", " + text(name) + b": " + text(fitting[name]) + b"}"
    yield Case(f"{name} twice", repeated, wrong=False)
    if kinds == set(KINDS):
        return
    if kinds & {"integer", "number"}:
        yield from numbers(schemas.plain(field), name, kinds, with_value)
    if "string" in kinds:
        has_words = any(key in schemas.plain(field) for key in ("enum", "const", "pattern"))
        yield from (Case(f"{value[:20]!r} for {name}", with_value(value), wrong=has_words) for value in TEXTS)
    if "array" in kinds:
        items = schemas.plain(field).get("items", {})
        for kind in sorted(KINDS.keys() - schemas.kinds(items)):
            yield Case(f"{kind} in {name}", with_value([KINDS[kind]]))
        yield Case(f"a long list of {name}", with_value([schemas.fitting(items)] * LONG_LIST), wrong=False)


def numbers(field, name, kinds, with_value):
    lowest = field.get("minimum", float("-inf"))
    highest = field.get("maximum", {"uint32": 2**32 - 1, "uint64": 2**64 - 1}.get(field.get("format"), float("inf")))
    for value in NUMBERS:
        is_whole = isinstance(value, int)
        out = not lowest <= value <= highest or ("number" not in kinds and not is_whole)
        yield Case(f"{value:g} for {name}", with_value(value), wrong=out)


def huge_cases(schemas, schema, random):
    """A text as long as a message may be, in one of the places where a text may be."""
    fitting = schemas.fitting(schema)
    yield Case("a huge text in its place", text(HUGE), wrong="string" not in schemas.kinds(schema))
    fields = schemas.plain(schema).get("properties", {})
    texts = [name for name, field in fields.items() if "string" in schemas.kinds(field)]
    if texts:
        name = random.choice(texts)
        yield Case(f"a huge text for {name}", text(fitting | {name: HUGE}), wrong=False)
    if schemas.plain(schema).get("additionalProperties") is False:
        yield Case("a field with a huge name", text(fitting | {HUGE: 1}))
