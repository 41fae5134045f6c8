"""Topics: the ones that every service uses, and the matching of MQTT filters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

ID_PATTERN = re.compile(r"[a-z0-9-]{1,63}")
"""Every id: a service, an instance, a prefix. Ids become topic levels and file names."""

TOPIC_BYTES_MAX = 1_024
"""The longest topic. MQTT allows 65,535; ours are short, and a limit keeps a hostile one out."""


def is_id(text: str) -> bool:
    """Whether the text may name a service, an instance or a prefix."""
    return ID_PATTERN.fullmatch(text) is not None


@dataclass(frozen=True)
class Topics:
    """The topics of one instance of one service."""

    prefix: str
    service: str
    instance: str
    key: Optional[str] = None
    """The API key with which somebody runs the service by hand; a supervised one has a token of its own."""

    @property
    def source(self) -> str:
        """Who its messages are from."""
        return self.service if self.key is None else f"key/{self.key}"

    @property
    def register(self) -> str:
        """Where an instance announces itself."""
        return f"{self.prefix}/system/discovery/register"

    @property
    def unregister(self) -> str:
        """Where it leaves."""
        return f"{self.prefix}/system/discovery/unregister"

    @property
    def heartbeat(self) -> str:
        """Where its signs of life go."""
        return f"{self.prefix}/system/health/{self.service}"

    @property
    def check(self) -> str:
        """Where every service is asked for a heartbeat."""
        return f"{self.prefix}/system/health/check"

    @property
    def keys(self) -> str:
        """Where the public keys of all who may act are listed."""
        return f"{self.prefix}/system/identity/keys"

    @property
    def command(self) -> str:
        """Where this service is asked to do something."""
        return self.command_of(self.service)

    @property
    def own_command(self) -> str:
        """Where this instance alone is asked to do something."""
        return f"{self.prefix}/{self.service}/{self.instance}/command"

    @property
    def shared_command(self) -> str:
        """The filter by which the instances of the service share its command topic: one of them gets each message."""
        return f"$share/{self.service}/{self.command}"

    @property
    def call(self) -> str:
        """Where the registry is asked to have a capability carried out."""
        return f"{self.prefix}/system/registry/call"

    @property
    def replies(self) -> str:
        """Where the answers to this instance's own calls arrive."""
        owner = self.service if self.key is None else f"keys/{self.key}"
        return f"{self.prefix}/{owner}/replies/{self.instance}"

    def command_of(self, service: str) -> str:
        """Where another service is asked to do something."""
        return f"{self.prefix}/{service}/command"

    def absolute(self, topic: str) -> str:
        """The whole topic. A leading `/` means from the root, as in `allow:` of the file."""
        return topic[1:] if topic.startswith("/") else f"{self.prefix}/{topic}"

    def relative(self, topic: str) -> str:
        """The reverse of `absolute`."""
        start = f"{self.prefix}/"
        return topic[len(start) :] if topic.startswith(start) else f"/{topic}"


def takes_replies(prefix: str, senders: Sequence[str], topic: str) -> bool:
    """Whether an answer to these senders may be sent to the topic that one of them named.

    Only to a topic that has a level `replies`, and under the prefix only to their own: otherwise anybody could make the
    service speak where only the service itself may, or answer in the place of somebody else. `senders` are what the broker
    and the envelope say of the sender; where both say nothing, any topic for replies will do.
    """
    if not is_topic(topic) or topic.startswith("$") or "replies" not in topic.split("/"):
        return False
    if not senders or not topic.startswith(f"{prefix}/"):
        return True
    return any(topic.startswith(_replies_to(prefix, sender)) for sender in senders)


def _replies_to(prefix: str, sender: str) -> str:
    """The beginning of every topic on which this sender awaits answers."""
    kind, _, name = sender.partition("/")
    if name and kind == "system":
        return f"{prefix}/system/replies/{_level(name)}/"
    if name and kind == "key":
        return f"{prefix}/keys/{_level(name)}/replies/"
    return f"{prefix}/{_level(sender)}/replies/"


def _level(text: str) -> str:
    """A text as one level of a topic."""
    return re.sub(r"[/+#\0]", "-", text)


def is_topic(topic: str) -> bool:
    """Whether one can publish to it."""
    return _fits(topic) and "+" not in topic and "#" not in topic


def is_filter(text: str) -> bool:
    """Whether one can subscribe to it (MQTT 5 section 4.7.1)."""
    levels = text.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index != len(levels) - 1):
            return False
        if "+" in level and level != "+":
            return False
    return _fits(text)


def _fits(text: str) -> bool:
    if not text or "\0" in text:
        return False
    try:
        return len(text.encode()) <= TOPIC_BYTES_MAX
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry and MQTT cannot
        return False


def filter_matches(text: str, topic: str) -> bool:
    """Whether a filter matches a topic, as MQTT 5 section 4.7 defines it."""
    if topic.startswith("$") and text[:1] in ("+", "#"):
        return False
    levels = topic.split("/")
    wanted = text.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(levels) == len(wanted)
