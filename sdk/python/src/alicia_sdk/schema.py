"""JSON Schemas: from annotations, and checks against the part of the standard that descriptions of inputs use.

The registry checks calls against the whole schema; here the same is checked again, so that a command that comes past the
registry is refused too. A keyword that is not known here is left to the registry.
"""

from __future__ import annotations

import operator
import re
import typing
from typing import Any, Callable, Mapping, Optional, Union

from .problem import Fault

FAULTS_MAX = 50
"""Faults that are listed; a hostile input has no right to a long answer."""

LEVELS_MAX = 64
"""How deep a schema is followed, and so a value is looked at."""

_UNIONS = (Union, getattr(__import__("types"), "UnionType", Union))
_TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}

Schema = dict[str, Any]


def of_hint(hint: Any) -> Schema:
    """The schema of an annotation. One that JSON knows nothing of takes anything."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if origin in _UNIONS:
        return {"anyOf": [of_hint(one) for one in inner]}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if hint is list or origin is list:
        return {"type": "array", "items": of_hint(inner[0])} if inner else {"type": "array"}
    if hint is dict or origin is dict:
        if len(inner) == 2 and inner[1] is not Any:
            return {"type": "object", "additionalProperties": of_hint(inner[1])}
        return {"type": "object"}
    return {}


def faults(schema: Any, value: Any, pointer: str) -> list[Fault]:
    """What of a value does not fit; `pointer` is where the value itself is."""
    found: list[Fault] = []
    _check(schema, value, pointer, found, (schema, LEVELS_MAX))
    return found[:FAULTS_MAX]


def _check(schema: Any, value: Any, at: str, found: list[Fault], state: tuple[Any, int]) -> None:
    root, levels = state
    if schema is False:
        found.append(Fault(at, "nothing is taken here"))
        return
    if not isinstance(schema, Mapping) or len(found) >= FAULTS_MAX:
        return
    if levels == 0:
        found.append(Fault(at, f"is deeper than {LEVELS_MAX} levels"))
        return
    deeper = (root, levels - 1)
    if "$ref" in schema:
        target = _follow(root, schema["$ref"])
        if target is not None:
            _check(target, value, at, found, deeper)
    if not _check_type(schema, value, at, found):
        return
    _check_values(schema, value, at, found)
    for part in schema.get("allOf", ()):
        _check(part, value, at, found, deeper)
    _check_choices(schema, value, at, found, deeper)
    if isinstance(value, str):
        _check_text(schema, value, at, found)
    elif isinstance(value, dict):
        _check_object(schema, value, at, found, deeper)
    elif isinstance(value, list):
        _check_list(schema, value, at, found, deeper)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(schema, value, at, found)


def _check_type(schema: Mapping[str, Any], value: Any, at: str, found: list[Fault]) -> bool:
    wanted = schema.get("type")
    if wanted is None:
        return True
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if any(_is(value, name) for name in names):
        return True
    expected = " or ".join(_WORDS.get(name, name) for name in names)
    found.append(Fault(at, f"found {_show(value)}, expected {expected}"))
    return False


def _is(value: Any, name: str) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "integer":
        return is_number and float(value).is_integer() if isinstance(value, float) else is_number
    kinds: dict[str, Any] = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
    return is_number if name == "number" else isinstance(value, kinds.get(name, ()))


def _check_values(schema: Mapping[str, Any], value: Any, at: str, found: list[Fault]) -> None:
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices is not None and not any(_same(value, one) for one in choices):
        expected = ", ".join(repr(one) for one in choices[:20])
        found.append(Fault(at, f"found {_show(value)}, expected one of {expected}"))


def _same(one: Any, other: Any) -> bool:
    # In Python True == 1; in JSON it is not.
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _check_choices(schema: Mapping[str, Any], value: Any, at: str, found: list[Fault], state: tuple[Any, int]) -> None:
    for keyword in ("anyOf", "oneOf"):
        if keyword not in schema:
            continue
        fits, tries = 0, []
        for part in schema[keyword]:
            own: list[Fault] = []
            _check(part, value, at, own, state)
            fits += not own
            tries += own[:1]
        if fits == 0:
            found.append(Fault(at, ", or ".join(one.message for one in tries) or "fits no choice"))
        elif fits > 1 and keyword == "oneOf":
            found.append(Fault(at, "fits more than one of the choices"))
    if "not" in schema:
        own = []
        _check(schema["not"], value, at, own, state)
        if not own:
            found.append(Fault(at, "is what is excluded"))


def _check_text(schema: Mapping[str, Any], value: str, at: str, found: list[Fault]) -> None:
    if len(value) < schema.get("minLength", 0):
        found.append(Fault(at, f"found {_show(value)}, expected a text of at least {schema['minLength']} characters"))
    if len(value) > schema.get("maxLength", len(value)):
        found.append(Fault(at, f"found {len(value)} characters, expected at most {schema['maxLength']}"))
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not re.search(pattern, value):
        found.append(Fault(at, f"found {_show(value)}, expected a text that matches {pattern}"))


def _check_number(schema: Mapping[str, Any], value: float, at: str, found: list[Fault]) -> None:
    checks: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
        ("minimum", operator.ge, "{} or more"),
        ("maximum", operator.le, "{} or less"),
        ("exclusiveMinimum", operator.gt, "more than {}"),
        ("exclusiveMaximum", operator.lt, "less than {}"),
    )
    for keyword, holds, words in checks:
        if keyword in schema and not holds(value, schema[keyword]):
            found.append(Fault(at, f"found {_show(value)}, expected {words.format(schema[keyword])}"))


def _check_object(
    schema: Mapping[str, Any], value: dict[str, Any], at: str, found: list[Fault], state: tuple[Any, int]
) -> None:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            found.append(Fault(f"{at}/{_escape(name)}", "is missing"))
    if len(value) > schema.get("maxProperties", len(value)):
        found.append(Fault(at, f"found {len(value)} values, expected at most {schema['maxProperties']}"))
    for name, one in value.items():
        place = f"{at}/{_escape(name)}"
        if name in properties:
            _check(properties[name], one, place, found, state)
        elif schema.get("additionalProperties") is False and "patternProperties" not in schema:
            found.append(Fault(place, "is not known here"))
        elif "patternProperties" not in schema:
            _check(schema.get("additionalProperties", True), one, place, found, state)


def _check_list(schema: Mapping[str, Any], value: list[Any], at: str, found: list[Fault], state: tuple[Any, int]) -> None:
    if len(value) < schema.get("minItems", 0):
        found.append(Fault(at, f"found {len(value)} items, expected at least {schema['minItems']}"))
    if len(value) > schema.get("maxItems", len(value)):
        found.append(Fault(at, f"found {len(value)} items, expected at most {schema['maxItems']}"))
    if "prefixItems" not in schema:
        for index, one in enumerate(value):
            _check(schema.get("items", True), one, f"{at}/{index}", found, state)


def _follow(root: Any, target: Any) -> Optional[Any]:
    """A place in the schema itself; references to elsewhere are left to the registry."""
    if not isinstance(target, str) or not target.startswith("#"):
        return None
    part = root
    for level in target[1:].split("/")[1:]:
        level = level.replace("~1", "/").replace("~0", "~")
        if not isinstance(part, Mapping) or level not in part:
            return None
        part = part[level]
    return part


def _show(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return _WORDS["array" if isinstance(value, list) else "object"]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)[:60]


def _escape(name: str) -> str:
    """A name as one part of a JSON pointer (RFC 6901 section 3)."""
    return str(name).replace("~", "~0").replace("/", "~1")
