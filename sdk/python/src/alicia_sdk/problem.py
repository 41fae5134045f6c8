"""What went wrong, for a person and for a program: the problem document (RFC 9457) of an error answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Mapping


@dataclass(frozen=True)
class Fault:
    """One fault of an input."""

    pointer: str
    """Where, as a JSON pointer (RFC 6901) into the payload: `/arguments/target`."""
    message: str
    """What was found and what was expected."""


@dataclass(frozen=True)
class Problem:
    """The answer of a command that failed."""

    code: str
    """Stable and dotted, for example `service.unknown_command`."""
    title: str
    """One line, the same for every occurrence of the code."""
    status: int
    """The status as in HTTP."""
    detail: str
    """What happened this time and what to do."""
    faults: tuple[Fault, ...] = ()
    """Each single fault of the input, when there are several."""

    def to_json(self) -> dict[str, Any]:
        """The document as it travels."""
        document: dict[str, Any] = {
            "type": f"/docs/errors/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.faults:
            document["faults"] = [asdict(fault) for fault in self.faults]
        return document

    @classmethod
    def from_json(cls, document: Any) -> Problem:
        """Reads a document; what is missing or of the wrong type is replaced, never an error."""
        fields: Mapping[str, Any] = document if isinstance(document, dict) else {}
        status = fields.get("status")
        faults = fields.get("faults")
        return cls(
            code=str(fields.get("code", "service.failed")),
            title=str(fields.get("title", "The command failed")),
            status=status if isinstance(status, int) else 500,
            detail=str(fields.get("detail", "")),
            faults=tuple(
                Fault(str(fault.get("pointer", "")), str(fault.get("message", "")))
                for fault in (faults if isinstance(faults, list) else ())
                if isinstance(fault, dict)
            ),
        )


class CommandError(Exception):
    """Raise it in a command handler to answer with a problem of your own."""

    def __init__(self, detail: str, *, code: str = "service.failed", status: int = 422) -> None:
        super().__init__(detail)
        self.problem = Problem(code, "The command failed", status, detail)


class CallFailed(Exception):
    """The called service answered with an error."""

    def __init__(self, service: str, command: str, problem: Problem) -> None:
        super().__init__(f"{service} {command}: {problem.detail or problem.title} ({problem.code})")
        self.problem = problem


class CallTimeout(TimeoutError):
    """No answer came in time. Whether the command was carried out is not known."""
