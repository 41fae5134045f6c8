"""Sends wrong input to every topic of docs/asyncapi.json on the bus of a running fleet, and judges each answer.

verbs.py DOCUMENT API PORT ADMIN_KEY OPERATE_KEY READ_KEY SEED SHARE PATIENCE: SHARE of the cases of each topic, for example 0.1
to warm up. The keys are called `admin`, `operator` and `reader`.

A call that is answered at all is answered within PATIENCE seconds, with a problem document whose code has a page in
docs/errors and is no fault of the module. Nobody is answered who wants no answer, may not have one there, or may not ask.
"""

import json
import os
import random
import sys
import threading
import time
import urllib.request

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import verb_cases
from verb_cases import NO_SUCH, Case, text

PATIENCE_SECONDS = 20
# What the broker lets a client have under way.
IN_FLIGHT = 60
NOT_ALLOWED = 0x87
ANSWER_BYTES_MAX = 256 << 10

# A service of the built-in example fleet: its commands are verbs too.
SERVICE = "sensors"

# Nobody may be answered there: no reply topic, the reply topic of another, of a module.
ELSEWHERE = ("alicia/suite/elsewhere", "alicia/keys/reader/replies/suite", "alicia/system/replies/health/suite")
# No topics, which only an envelope can hold: a client that used them would lose its connection.
NOWHERE = ("alicia/keys/admin/replies/+", "alicia/keys/admin/replies/\x01", "alicia/keys/admin/replies/\x00", "$SYS/replies/x", "")
EARS = ("alicia/suite/#", "alicia/keys/+/replies/#", "alicia/+/replies/#", "alicia/system/replies/#")


class Client:
    """One client of MQTT 5, by the name of its key."""

    def __init__(self, port, name, key, heard=None, client_id="suite-verbs"):
        self.name, self.codes, self.ready = name, {}, threading.Event()
        self.changed = threading.Condition()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"{client_id}-{name}", protocol=mqtt.MQTTv5)
        self.client.max_inflight_messages_set(IN_FLIGHT)
        self.client.username_pw_set(name, key)
        self.client.on_connect = lambda client, data, flags, reason, properties: self.ready.set()
        self.client.on_subscribe = lambda client, data, number, reasons, properties: self.ready.set()
        self.client.on_publish = self.on_publish
        self.client.on_disconnect = self.on_disconnect
        self.client.on_message = lambda client, data, message: heard(message)
        self.client.connect("127.0.0.1", int(port))
        self.client.loop_start()
        self.await_ready("CONNACK")

    def on_disconnect(self, client, data, flags, reason, properties):
        if reason.value != 0:
            print(f"{self.name} was cut off: {reason}", flush=True)
            # It would come back without its subscriptions, and hear nothing.
            os._exit(1)

    def await_ready(self, what):
        if not self.ready.wait(PATIENCE_SECONDS):
            sys.exit(f"{self.name}: no {what} after {PATIENCE_SECONDS} s")
        self.ready.clear()

    def on_publish(self, client, data, number, reason, properties):
        with self.changed:
            self.codes[number] = reason.value
            self.changed.notify_all()

    def subscribe(self, filters):
        self.client.subscribe([(one, mqtt.SubscribeOptions(qos=1)) for one in filters])
        self.await_ready("SUBACK")

    def send(self, topic, payload, qos=1, retain=False, respond=None, correlation=None, signature=None):
        properties = Properties(PacketTypes.PUBLISH)
        if respond is not None:
            properties.ResponseTopic = respond
        if correlation is not None:
            properties.CorrelationData = correlation
        if signature is not None:
            properties.UserProperty = ("alicia-signature", signature)
        return self.client.publish(topic, payload, qos, retain, properties).mid

    def code(self, number):
        """What the broker says of a message with QoS 1 or 2."""
        with self.changed:
            if not self.changed.wait_for(lambda: number in self.codes, PATIENCE_SECONDS):
                return None
            return self.codes[number]


class Verbs:
    def __init__(self, document, api, port, admin, operate, read, seed, share, patience):
        with open(document, encoding="utf-8") as file:
            self.document = json.load(file)
        self.schemas = verb_cases.Schemas(self.document)
        self.api, self.admin_key, self.share, self.patience = api, admin, float(share), float(patience)
        self.random = random.Random(int(seed))
        self.changed = threading.Condition()
        self.answers, self.faults, self.sent, self.due, self.refusals = {}, [], {}, {}, {}
        # Messages are known by their ids: those of the run before do not count.
        self.tried, self.count, self.run_id = set(), 0, time.time_ns()
        self.admin = Client(port, "admin", admin, self.on_message)
        self.operator = Client(port, "operator", operate)
        self.reader = Client(port, "reader", read)
        self.port = port
        self.admin.subscribe(EARS)
        self.instance = self.instance_of(SERVICE)

    # === The fleet as REST tells it ===

    def get(self, path):
        request = urllib.request.Request(self.api + path, headers={"Authorization": "Bearer " + self.admin_key})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def instance_of(self, service):
        status = self.get("/api/orchestrator/status")
        return next(one["instances"][0]["instance"] for one in status["services"] if one["service"] == service)

    def state(self):
        """What no wrong message may change."""
        status = self.get("/api/orchestrator/status")["services"]
        return {
            "wanted": {one["service"]: one["wanted"] for one in status},
            "pids": {one["service"]: [slot["pid"] for slot in one["instances"]] for one in status},
            "deployments": [one["number"] for one in self.get("/api/orchestrator/deployments")["deployments"]],
            "silences": self.get("/api/health/silences"),
            "maintenance": self.get("/api/health/maintenance"),
            "agents": sorted(one["instance"] for one in self.get("/api/registry/agents?limit=500")["agents"]),
            "keys": sorted(one["name"] for one in self.get("/api/keys")),
        }

    # === Topics ===

    def topics(self):
        """Each channel with each of its topics: one for each verb, and a name for each other level that varies."""
        for key, channel in self.document["channels"].items():
            yield from ((key, channel, topic) for topic in self.addresses(key, channel))

    def addresses(self, key, channel):
        is_call = channel["x-alicia-kind"] == "call"
        names = {"service": SERVICE if is_call else NO_SUCH, "instance": self.instance if is_call else NO_SUCH}
        verbs = [None]
        for name, parameter in channel.get("parameters", {}).items():
            if name in names:
                continue
            verbs = parameter.get("enum") or sys.exit(f"{key}: the document does not say what {{{name}}} may be")
        for verb in verbs:
            address = channel["address"]
            for name in channel.get("parameters", {}):
                address = address.replace(f"{{{name}}}", names.get(name, verb))
            yield address

    def calls(self):
        """The schema and the topic of each call."""
        return [(self.schemas.of(channel), topic) for _, channel, topic in self.topics() if channel["x-alicia-kind"] == "call"]

    # === Saying and hearing ===

    def on_message(self, message):
        """An answer, if it is one to us: the other traffic has other correlations."""
        data = getattr(message.properties, "CorrelationData", None)
        with self.changed:
            if data not in self.sent:
                return
            self.answers.setdefault(data, []).append((message.topic, message.payload))
            left = self.due.pop(data, 0) - 1
            if left > 0:
                self.due[data] = left
            self.changed.notify_all()

    def ask(self, topic, case, expected=1, client=None, **more):
        """Sends one and notes how many answers are due: none, one, or None for at most one."""
        self.count += 1
        client = client or self.admin
        correlation = more.pop("correlation", None) or f"suite-{self.count}".encode()
        with self.changed:
            self.sent.setdefault(correlation, []).append((topic, case, expected))
            if expected:
                self.due[correlation] = self.due.get(correlation, 0) + expected
        more.setdefault("respond", "alicia/keys/admin/replies/suite")
        more.setdefault("qos", self.count % 3)
        self.tried.add(topic)
        more["correlation"] = None if more.pop("is_bare", True) is False else correlation
        return client.send(topic, case.payload, **more)

    def settle(self):
        """Waits for what is due."""
        with self.changed:
            if self.changed.wait_for(lambda: not self.due, self.patience):
                return
            for data in self.due:
                topic, case, _ = self.sent[data][0]
                self.faults.append(f"{topic}: no answer to {case.name}: {case.payload[:200]}")
                print("  " + self.faults[-1], flush=True)
            self.due.clear()

    def judge(self):
        """Looks at each answer of those asked since the last time. Late ones are due to nobody."""
        with self.changed:
            for data, asked in self.sent.items():
                answers = self.answers.get(data, [])
                topic, case, _ = asked[0]
                most = sum(1 if due is None else due for _, _, due in asked)
                if len(answers) > most:
                    self.faults.append(f"{topic}: {len(answers)} answers, expected {most}, to {case.name}: on {answers[0][0]}: {answers[0][1][:200]}")
                for _, payload in answers:
                    fault = self.fault_of(topic, case, payload)
                    if fault:
                        self.faults.append(f"{topic}: {case.name}: {fault}: {payload[:300]}")

    def fault_of(self, topic, case, payload):
        """What is wrong with an answer; None when nothing is."""
        if len(payload) > ANSWER_BYTES_MAX:
            return f"an answer of {len(payload)} bytes"
        try:
            envelope = json.loads(payload)
            kind, said = envelope["message_type"], envelope["payload"]
        except (ValueError, KeyError, TypeError):
            return "the answer is no envelope"
        if kind == "response":
            return "it was taken" if case.wrong else None
        if kind != "error" or not isinstance(said, dict):
            return "the answer is neither a response nor an error"
        code, status = str(said.get("code")), said.get("status")
        self.refusals[topic] = self.refusals.get(topic, 0) + 1
        if not all(isinstance(said.get(name), str) and said[name] for name in ("type", "title", "detail", "code")):
            return "the error is no problem document"
        if said["type"] != "/docs/errors/" + code or not os.path.exists(f"docs/errors/{code}.md"):
            return f"{code} has no page"
        if not isinstance(status, int) or not 400 <= status <= 599 or status == 500 or code.endswith(".internal"):
            return f"{status} {code} is a fault of the module"
        return None

    # === Sections ===

    def some(self, cases):
        cases = list(cases)
        if self.share >= 1:
            return cases
        return self.random.sample(cases, max(1, int(len(cases) * self.share)))

    def served(self):
        """Somebody answers on each topic for calls."""
        for _, topic in self.calls():
            self.ask(topic, Case("a list", b"[]"), 1, qos=1)
        self.settle()
        if self.faults:
            sys.exit("not all verbs are served:\n" + "\n".join(self.faults))

    def payloads(self):
        """Every case of every topic. Calls must be answered; for others there is nobody to answer."""
        for key, channel, topic in self.topics():
            schema, kind = self.schemas.of(channel), channel["x-alicia-kind"]
            cases = self.some(verb_cases.cases(self.schemas, schema))
            if kind != "call":
                # What may fit changes something here. Nothing at all clears a state.
                cases = [case for case in cases if case.wrong and (case.payload or kind == "event")]
            for case in cases:
                self.ask(topic, case, 1 if kind == "call" else None)
            self.settle()
            for case in self.some(verb_cases.huge_cases(self.schemas, schema, self.random)):
                if kind == "call" or case.wrong:
                    # One after the other: a queue in the broker holds a few of these.
                    self.ask(topic, case, 1 if kind == "call" else None, qos=1)
                    self.settle()

    def envelopes(self):
        """What can be wrong around a payload."""
        now = time.time()
        for schema, topic in self.calls():
            fitting = self.schemas.fitting(schema)

            def envelope(payload=fitting, **fields):
                self.count += 1
                whole = {"message_id": f"suite-{self.run_id}-{self.count}", "timestamp": now, "source": "key/admin"}
                return whole | {"message_type": "request", "payload": payload} | fields

            def ask(name, fields, expected, wrong=True, **more):
                self.ask(topic, Case(f"an envelope with {name}", text(envelope(**fields)), wrong=wrong), expected, **more)

            long = "i" * 70_000
            ask("a payload that is a list", {"payload": []}, 1)
            ask("no payload", {"payload": None}, 1)
            for name in ("message_id", "timestamp", "source", "message_type", "ttl", "routing", "correlation_id", "reply_to"):
                wrong = {} if name in ("message_type", "timestamp", "ttl") else 7
                ask(f"{name} of another type", {name: wrong}, 1)
            for name in ("message_id", "source", "correlation_id"):
                ask(f"a long {name}", {name: long}, 1)
            ask("a long reply_to", {"reply_to": "alicia/keys/admin/replies/" + long}, 0, respond=None)
            ask("an unknown kind", {"message_type": "wish"}, 1)
            ask("hops of more than there are", {"routing": {"hops": 2**40}}, 1)
            ask("an end in the past", {"timestamp": 1.0, "ttl": 1.0}, 0)
            ask("an end before its beginning", {"ttl": -1e9}, 0)
            ask("too many hops", {"routing": {"hops": 11, "max_hops": 10}}, 0)
            ask("a signature that is none", {}, 1, signature="x.y.z")
            by_envelope = f"suite-by-envelope-{self.count}"
            fields = {"correlation_id": by_envelope, "reply_to": "alicia/keys/admin/replies/suite"}
            ask("its reply in it", fields, 1, wrong=False, correlation=by_envelope.encode(), respond=None, is_bare=False)
            for elsewhere in ELSEWHERE + NOWHERE:
                ask(f"a reply to {elsewhere!r}", {"reply_to": elsewhere}, 0, respond=None)
            for elsewhere in ELSEWHERE:
                self.ask(topic, Case(f"an answer on {elsewhere}", b"[]"), 0, respond=elsewhere)
            self.ask(topic, Case("no response topic", b"[]"), 0, respond=None)
            # The same correlation twice is two requests; the same message twice is one.
            same = f"suite-same-{self.count}".encode()
            for _ in range(2):
                self.ask(topic, Case("a correlation twice", b"[]"), 1, correlation=same)
            twice = Case("a message twice", text(envelope(payload=[])))
            same = f"suite-twice-{self.count}".encode()
            self.ask(topic, twice, 1, correlation=same, qos=1)
            self.ask(topic, twice, 0, correlation=same, qos=1)
            self.settle()

    def permissions(self):
        """Who may not ask is refused by the broker, and nobody hears of it."""
        refused = []
        for _, channel, topic in self.topics():
            refused.append((topic, self.reader, self.ask(topic, Case("a read key", b"[]"), 0, self.reader, qos=1)))
            if channel["x-alicia-kind"] == "state":
                refused.append((topic, self.operator, self.ask(topic, Case("an operator", b"[]"), 0, self.operator, qos=1)))
        for schema, topic in self.calls():
            body = {"message_id": f"suite-{self.run_id}", "timestamp": time.time(), "source": "key/admin", "message_type": "request"}
            forged = Case("a forged source", text(body | {"payload": self.schemas.fitting(schema)}))
            refused.append((topic, self.operator, self.ask(topic, forged, 0, self.operator, qos=1)))
            kept = self.ask(topic, Case("an operator that retains", b"[]"), 0, self.operator, qos=1, retain=True)
            refused.append((topic, self.operator, kept))
        for topic, client, number in refused:
            if (code := client.code(number)) != NOT_ALLOWED:
                self.faults.append(f"{topic}: {client.name} was not refused, but told {code}")

    def retained(self):
        """A retained command is refused when it is live, and gone when it is cleared."""
        topics = [topic for _, topic in self.calls()]
        for topic in topics:
            self.ask(topic, Case("a retained command", b"[]"), 1, qos=1, retain=True)
        self.settle()
        for topic in topics:
            # Heard as an empty request, which is refused like any other.
            self.ask(topic, Case("a retained command is cleared", b""), 1, qos=1, retain=True)
        self.settle()
        kept = []

        def hear(message):
            if message.retain:
                kept.append(message.topic)

        late = Client(self.port, "admin", self.admin_key, hear, client_id="suite-verbs-late")
        late.subscribe([*topics, "alicia/suite/late"])
        # What is retained comes before this.
        late.code(late.send("alicia/suite/late", b"1"))
        late.client.disconnect()
        self.faults.extend(f"{topic}: a command is retained" for topic in kept)

    def run(self):
        before = self.state()
        for section in (self.served, self.payloads, self.envelopes, self.permissions, self.retained):
            started, count = time.monotonic(), self.count
            section()
            print(f"  {section.__name__}: {self.count - count} messages ({time.monotonic() - started:.1f} s)", flush=True)
        self.judge()
        after = self.state()
        self.faults.extend(f"{name} changed: {before[name]} to {after[name]}" for name in before if before[name] != after[name])
        expected = {topic for _, _, topic in self.topics()}
        self.faults.extend(f"{topic} was not tried" for topic in sorted(expected - self.tried))
        self.faults.extend(f"{topic} has refused nothing" for _, topic in self.calls() if topic not in self.refusals)
        print(f"  {len(expected)} topics, {len(self.calls())} of them calls: {self.count} messages, {sum(self.refusals.values())} refusals")


def main(*arguments):
    verbs = Verbs(*arguments)
    verbs.run()
    for client in (verbs.admin, verbs.operator, verbs.reader):
        client.client.disconnect()
    if verbs.faults:
        sys.exit(f"{len(verbs.faults)} faults:\n" + "\n".join(verbs.faults[:40]))


if __name__ == "__main__":
    main(*sys.argv[1:])
