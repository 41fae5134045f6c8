"""For services written in Python: register, heartbeat, commands, health."""

from .envelope import Message
from .problem import CallFailed, CallTimeout, CommandError, Fault, Problem
from .service import Service
from .settings import ConfigurationError

__version__ = "0.1.0"

__all__ = [
    "CallFailed",
    "CallTimeout",
    "CommandError",
    "ConfigurationError",
    "Fault",
    "Message",
    "Problem",
    "Service",
    "__version__",
]
