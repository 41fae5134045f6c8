"""The commands of a service: from a message on its command topic to the answer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Callable

from .arguments import ArgumentFaults, Signature
from .envelope import Message
from .problem import CommandError, Fault, Problem
from .schema import faults

log = logging.getLogger("alicia_sdk")


@dataclass(frozen=True)
class Command:
    """A handler and what it takes."""

    handler: Callable[..., Any]
    signature: Signature
    schema: Any = None
    """What its arguments must fit, beside the annotations."""


class Commands:
    """Every command by name."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def add(self, name: str, handler: Callable[..., Any], schema: Any = None) -> Signature:
        """Adds a command, or replaces a built-in one."""
        signature = Signature(handler)
        self._commands[name] = Command(handler, signature, schema)
        return signature

    @property
    def names(self) -> list[str]:
        """The names in alphabetical order."""
        return sorted(self._commands)

    def describe(self) -> dict[str, list[str]]:
        """The names of each command's arguments, for the registry."""
        return {name: self._commands[name].signature.names for name in self.names}

    def run(self, message: Message) -> tuple[str, Any]:
        """Runs the command of a message: (`response`, what the handler returned) or (`error`, a problem)."""
        payload = message.payload
        name = payload.get("command") if isinstance(payload, dict) else None
        if not isinstance(name, str):
            return _error(
                "service.invalid_command",
                "The message is not a command",
                400,
                'expected {"command": "<name>", "arguments": {…}}',
                Fault("/command", "is missing or not a text"),
            )
        command = self._commands.get(name)
        if command is None:
            known = ", ".join(self.names)
            return _error("service.unknown_command", "No such command", 404, f"no command {name[:80]!r}, known: {known}")
        arguments = payload.get("arguments")
        try:
            if command.schema is not None:
                found = faults(command.schema, {} if arguments is None else arguments, "/arguments")
                if found:
                    raise ArgumentFaults(found)
            bound = command.signature.bind(arguments, message)
        except ArgumentFaults as error:
            return _error(
                "service.invalid_arguments", "The arguments do not fit", 422, f"{name}: {error}", *error.faults
            )
        return _call(name, command.handler, bound)


def _call(name: str, handler: Callable[..., Any], bound: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "response", handler(**bound)
    except CommandError as error:
        return "error", error.problem.to_json()
    except Exception as error:
        log.exception("the command %s failed", name)
        # The text of an exception may hold what the caller must not see; the log has it.
        detail = f"{name}: {type(error).__name__}; the log of the service has the rest"
        return _error("service.failed", "The command failed", 500, detail)


def _error(code: str, title: str, status: int, detail: str, *faults: Fault) -> tuple[str, Any]:
    return "error", Problem(code, title, status, detail, faults).to_json()
