"""From the arguments of a command to the parameters of its handler, with every fault at once."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Callable, Optional, Union

from .envelope import Message
from .problem import Fault
from .schema import of_hint

_SCALARS: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_UNIONS = (Union, getattr(__import__("types"), "UnionType", Union))


class ArgumentFaults(Exception):
    """The arguments do not fit the handler."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.pointer}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


class Signature:
    """What one handler takes."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        try:
            hints = typing.get_type_hints(handler)
        except (NameError, TypeError):  # a name that exists for the type checker only: taken as it comes
            hints = {}
        self._parameters: dict[str, inspect.Parameter] = {}
        self._takes_more = False
        self._message_name: Optional[str] = None
        self._hints = hints
        for name, parameter in inspect.signature(handler).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                self._takes_more = True
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise TypeError(f"{handler!r}: {name} has no name that an argument could have")
            elif hints.get(name) is Message:
                self._message_name = name
            else:
                self._parameters[name] = parameter

    @property
    def names(self) -> list[str]:
        """The names of the arguments."""
        return list(self._parameters)

    def input_schema(self) -> dict[str, Any]:
        """A JSON Schema of the arguments, by their annotations."""
        parameters = self._parameters.items()
        described: dict[str, Any] = {
            "type": "object",
            "properties": {name: of_hint(self._hints.get(name, Any)) for name, _ in parameters},
            "required": [name for name, parameter in parameters if parameter.default is parameter.empty],
            "additionalProperties": self._takes_more,
        }
        return described

    def output_schema(self) -> Optional[dict[str, Any]]:
        """A JSON Schema of what the handler returns, by its annotation; None when it says nothing."""
        return of_hint(self._hints.get("return", Any)) or None

    def bind(self, arguments: Any, message: Message) -> dict[str, Any]:
        """The keyword arguments of the call, or `ArgumentFaults`."""
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise ArgumentFaults([Fault("/arguments", f"found {_name(arguments)}, expected an object")])
        faults: list[Fault] = []
        bound: dict[str, Any] = {}
        for name, value in arguments.items():
            if name in self._parameters:
                found = convert(value, self._hints.get(name, Any), f"/arguments/{_escape(name)}", faults)
                bound[name] = found
            elif self._takes_more and name != self._message_name:
                bound[name] = value
            else:
                known = ", ".join(self._parameters) or "none"
                faults.append(Fault(f"/arguments/{_escape(name)}", f"no such argument, expected: {known}"))
        for name, parameter in self._parameters.items():
            if name not in arguments and parameter.default is parameter.empty:
                faults.append(Fault(f"/arguments/{_escape(name)}", "is missing"))
        if faults:
            raise ArgumentFaults(faults)
        if self._message_name is not None:
            bound[self._message_name] = message
        return bound


def convert(value: Any, hint: Any, pointer: str, faults: list[Fault]) -> Any:
    """The value as its annotation wants it. Annotations that JSON knows nothing of are not checked."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS:
        return _scalar(value, hint, pointer, faults)
    if origin in _UNIONS:
        return _union(value, inner, pointer, faults)
    if origin is typing.Literal:
        if not any(value == one and type(value) is type(one) for one in inner):
            expected = " or ".join(repr(one) for one in inner)
            faults.append(Fault(pointer, f"found {value!r}, expected {expected}"))
        return value
    if hint is list or origin is list:
        return _list(value, inner[0] if inner else Any, pointer, faults)
    if hint is dict or origin is dict:
        return _dict(value, inner[1] if inner else Any, pointer, faults)
    if hint is type(None) and value is not None:
        faults.append(Fault(pointer, f"found {_name(value)}, expected null"))
    return value


def _scalar(value: Any, hint: Any, pointer: str, faults: list[Fault]) -> Any:
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            faults.append(Fault(pointer, "the number is too large"))
            return value
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not hint:
        faults.append(Fault(pointer, f"found {_name(value)}, expected {_SCALARS[hint]}"))
    return value


def _union(value: Any, choices: tuple[Any, ...], pointer: str, faults: list[Fault]) -> Any:
    tries: list[list[Fault]] = []
    for choice in choices:
        own: list[Fault] = []
        converted = convert(value, choice, pointer, own)
        if not own:
            return converted
        tries.append(own)
    faults.append(Fault(pointer, ", or ".join(own[0].message for own in tries)))
    return value


def _list(value: Any, item: Any, pointer: str, faults: list[Fault]) -> Any:
    if not isinstance(value, list):
        faults.append(Fault(pointer, f"found {_name(value)}, expected a list"))
        return value
    return [convert(one, item, f"{pointer}/{index}", faults) for index, one in enumerate(value)]


def _dict(value: Any, item: Any, pointer: str, faults: list[Fault]) -> Any:
    if not isinstance(value, dict):
        faults.append(Fault(pointer, f"found {_name(value)}, expected an object"))
        return value
    return {key: convert(one, item, f"{pointer}/{_escape(key)}", faults) for key, one in value.items()}


def _name(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value!r}" if abs(value) < 1e300 else "a number"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"


def _escape(name: str) -> str:
    """A name as one part of a JSON pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
