//! What a newcomer gets wrong, and what is said about it: position, message and hint of every fault.

#[path = "mistakes/kinds.rs"]
mod kinds;

#[path = "mistakes/life.rs"]
mod life;

use std::collections::BTreeMap;

use alicia_contract::ServiceName;
use alicia_contract::fleet::{GroupSpec, ServiceSpec};
use alicia_file::{Document, Fault, Schema, Sources, fleet};
use schemars::JsonSchema;

/// A file of the same shape as the real one, with fewer sections.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct File {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    http: Option<Http>,
    #[serde(default)]
    services: BTreeMap<ServiceName, ServiceSpec>,
    #[serde(default)]
    groups: BTreeMap<ServiceName, GroupSpec>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Http {
    listen: String,
    #[serde(default)]
    open: bool,
}

/// Everything that is wrong with a file, found in the way the host does it.
fn faults(yaml: &str) -> Vec<Fault> {
    let document = match Document::parse(Sources::new().file("alicia.yaml", yaml)) {
        Ok(document) => document,
        Err(faults) => return faults,
    };
    let schema = Schema::compile(schemars::schema_for!(File).to_value()).expect("it is a schema");
    let faults = document.check(&schema);
    if !faults.is_empty() {
        return faults;
    }
    match fleet::read(&document) {
        Ok(fleet) => fleet::check(&fleet, Some(&document)),
        Err(faults) => faults,
    }
}

/// A fault on one line, without its file.
fn line(fault: &Fault) -> String {
    let origin = fault.origin.to_string().replace("alicia.yaml:", "");
    let hint = fault.hint.as_ref().map(|hint| format!(" | {hint}"));
    format!("{origin}: {}{}", fault.message, hint.unwrap_or_default())
}

fn check(yaml: &str, expected: &[&str]) {
    let found: Vec<String> = faults(yaml).iter().map(line).collect();
    assert_eq!(found, expected, "{yaml}");
}

#[test]
fn a_fault_is_shown_with_its_line() {
    let shown: Vec<String> = faults("services:\n  api:\n    comand: python3 api.py\n")
        .iter()
        .map(Fault::to_string)
        .collect();
    let expected = "alicia.yaml:3:5: unknown key `comand`\n    3 |     comand: python3 api.py\n      |     ^^^^^^ did you mean `command`?";
    assert_eq!(shown, [expected]);
}

#[test]
fn keys_and_sections() {
    // An unknown key.
    check(
        "services:\n  api:\n    comand: python3 api.py\n",
        &["3:5: unknown key `comand` | did you mean `command`?"],
    );
    // A key of compose.
    check(
        "services:\n  api:\n    command: python3 api.py\n    env: {A: b}\n    replicas: 2\n    healthcheck: {}\n",
        &[
            "4:5: unknown key `env` | did you mean `environment`?",
            "5:5: unknown key `replicas` | did you mean `instances`?",
            "6:5: unknown key `healthcheck` | did you mean `readiness`?",
        ],
    );
    // A key of compose that stands elsewhere here, and the same one where nobody would look for it.
    check(
        "version: '3'\nservices:\n  db:\n    image: postgres:16\n",
        &[
            "1:1: unknown key `version` | leave it away; `alicia import compose` takes a compose file over",
            "4:5: unknown key `image` | write `container: {image: …}`",
        ],
    );
    // One that is a path here, and one whose case differs.
    check(
        "services:\n  api:\n    command: python3 api.py\n    stop_grace_period: 10s\n    stop_signal: SIGINT\n    Image: nginx\n",
        &[
            "4:5: unknown key `stop_grace_period` | did you mean `stop.grace`? write `stop: {grace: …}`",
            "5:5: unknown key `stop_signal` | did you mean `stop.signal`? write `stop: {signal: …}`",
            "6:5: unknown key `Image` | write `container: {image: …}`",
        ],
    );
    // A key without one that is near: those that are least unlike.
    let yaml = "services:\n  api:\n    command: python3 api.py\n    zzzzzz: nginx\n";
    let found: Vec<String> = faults(yaml).iter().map(line).collect();
    let [fault] = &found[..] else {
        panic!("{found:?}")
    };
    let begin = "4:5: unknown key `zzzzzz` | none of the ";
    assert!(fault.starts_with(begin), "{fault}");
    let named = fault.split_once(" keys here is like it; the least unlike are ");
    assert_eq!(
        named.map(|(_, keys)| keys.matches('`').count()),
        Some(10),
        "{fault}"
    );
    // A service beside services.
    check(
        "api:\n  command: python3 api.py\n",
        &["1:1: unknown key `api` | a service stands below `services:`, indented"],
    );
    // An unknown section.
    check(
        "http: {listen: x}\nmodule: {}\n",
        &["2:1: unknown key `module` | expected `groups`, `http`, `name` or `services`"],
    );
    // No command.
    check(
        "services:\n  api:\n    instances: 2\n",
        &[
            "2:3: `api` has no `command` | add `command:` (the program and its arguments), or `container:`",
        ],
    );
    // An empty service.
    check(
        "services:\n  api:\n",
        &["2:3: `api` is empty, expected a map of keys | write a value, or remove the key"],
    );
    // Services as a list.
    check(
        "services:\n  - name: api\n    command: x\n",
        &[
            "1:1: `services` is a list, expected a map of keys | write `key: value` lines without `- `",
        ],
    );
    // A name that is none.
    check(
        "services:\n  My_API:\n    command: x\n",
        &[
            "2:3: found the key `My_API`, expected a name of 1 to 63 characters out of a-z, 0-9 and `-` | write for example `my-api`",
        ],
    );
}

#[test]
fn keys_one_mapping_too_high() {
    let check = |key: &str, hint: &str| {
        let yaml = format!("services:\n  api:\n    command: python3 api.py\n    {key}: 5\n");
        check(&yaml, &[&format!("4:5: unknown key `{key}` | {hint}")]);
    };
    // The whole path, with whatever stands between its parts.
    let grace = "did you mean `stop.grace`? write `stop: {grace: …}`";
    check("stop_grace", grace);
    check("stop.grace", grace);
    check("stopGrace", grace);
    // With a slip.
    check("stop_gracee", grace);
    check(
        "scaling_mx",
        "did you mean `scaling.max`? write `scaling: {max: …}`",
    );
    // Its last part alone, which may stand in several places.
    check("grace", grace);
    check(
        "factor",
        "did you mean `back_off.factor`? write `back_off: {factor: …}`",
    );
    check(
        "interval",
        "did you mean `liveness.interval` or `readiness.interval`?",
    );
    // What other supervisors call it.
    let starts = "did you mean `start_limit.starts`? write `start_limit: {starts: …}`";
    check("restart_max", starts);
    check("max_restarts", starts);
    check("stopwaitsecs", grace);
    // The first part, and nothing that is near behind it.
    check(
        "stop_zzzzzzz",
        "below `stop` there can be `grace` or `signal`",
    );
    // A key of its own that is mistyped is nearer than a part of a path.
    check("restarts", "did you mean `restart`?");
    // Where nothing lies below, nothing of the sort is said.
    let yaml = "http: {listen: x, stop_grace: 5s}\n";
    self::check(
        yaml,
        &["1:19: unknown key `stop_grace` | expected `listen` or `open`"],
    );
}

#[test]
fn commands() {
    // A command that is a number.
    check(
        "services:\n  api:\n    command: 5\n",
        &[
            "3:14: `command` is the number 5, expected text such as `python3 -u api.py` or a list such as `[python3, -u, api.py]` | write it in quotes: `\"5\"`",
        ],
    );
    // A command with a map in it.
    check(
        "services:\n  api:\n    command: [python3, {a: b}]\n",
        &[
            "3:24: item 2 of `command` is a map of keys, expected text | put a text that contains `: ` in quotes",
        ],
    );
    // An empty command.
    check(
        "services:\n  api:\n    command: []\n  web:\n    command: \"\"\n",
        &["3:5: `command` is empty | write a value, or remove the key"],
    );
    // A quote that is open.
    check(
        "services:\n  api:\n    command: python3 -c \"print(1)\n",
        &["3:14: a quote in the command is not closed | close it, or write the command as a list"],
    );
    // A shell where none is.
    check(
        "services:\n  api:\n    command: cd /srv && python3 api.py\n",
        &[
            "3:14: no shell runs the command, so `&&` does nothing | write `[sh, -c, \"cd /srv && python3 api.py\"]`",
        ],
    );
    // A variable where no shell is.
    check(
        "services:\n  api:\n    command: python3 api.py --port ${PORT}\n",
        &[
            "3:14: no shell runs the command, so `${PORT}` is not replaced | write `[sh, -c, \"python3 api.py --port ${PORT}\"]`",
        ],
    );
    // A variable before the program.
    check(
        "services:\n  api:\n    command: DEBUG=1 python3 api.py\n",
        &[
            "3:14: the command begins with the variable `DEBUG`, not with a program | write `DEBUG` below `environment:`",
        ],
    );
}

#[test]
fn values_of_the_wrong_kind() {
    // A policy that is none.
    check(
        "services:\n  api:\n    command: python3 api.py\n    restart: allways\n",
        &[
            "4:14: `restart` is the text `allways`, expected `always`, `on-failure` or `never` | did you mean `always`?",
        ],
    );
    // A policy of compose.
    check(
        "services:\n  api:\n    command: python3 api.py\n    restart: unless-stopped\n",
        &[
            "4:14: `restart` is the text `unless-stopped`, expected `always`, `on-failure` or `never` | did you mean `always`?",
        ],
    );
    // A policy as a truth value.
    check(
        "services:\n  api:\n    command: python3 api.py\n    restart: false\n",
        &["4:14: `restart` is `false`, expected `always`, `on-failure` or `never` | write `never`"],
    );
    // A number that is text.
    check(
        "services:\n  api:\n    command: python3 api.py\n    instances: two\n",
        &["4:16: `instances` is the text `two`, expected a whole number from 0 to 1000"],
    );
    // A number in quotes.
    check(
        "services:\n  api:\n    command: python3 api.py\n    instances: \"2\"\n",
        &[
            "4:16: `instances` is the text `2`, expected a whole number from 0 to 1000 | remove the quotes",
        ],
    );
    // A negative number.
    check(
        "services:\n  api:\n    command: python3 api.py\n    instances: -1\n",
        &["4:16: `instances` is the number -1, expected a whole number from 0 to 1000"],
    );
    // A fraction.
    check(
        "services:\n  api:\n    command: python3 api.py\n    instances: 1.5\n",
        &["4:16: `instances` is the number 1.5, expected a whole number from 0 to 1000"],
    );
    // A period without a unit.
    check(
        "services:\n  api:\n    command: python3 api.py\n    start_timeout: 30\n",
        &[
            "4:20: `start_timeout` is the number 30, expected a period such as `30s` or `5m` | write `30s` for seconds",
        ],
    );
    // A period with spaces.
    check(
        "services:\n  api:\n    command: python3 api.py\n    start_timeout: 30 seconds\n",
        &[
            "4:20: `start_timeout` is the text `30 seconds`, expected a period such as `30s` or `5m` | write whole numbers with ms, s, m, h or d, such as `1h30m`",
        ],
    );
    // A size without a unit.
    check(
        "services:\n  api:\n    command: python3 api.py\n    log: {max_size: 10, max_files: 0}\n",
        &[
            "4:21: `max_size` is the number 10, expected a size such as `64KiB` or `10MiB` | write `10MiB` for mebibytes",
            "4:36: `max_files` is the number 0, expected a whole number from 1 to 100",
        ],
    );
    // A size of another kind.
    check(
        "services:\n  api:\n    command: python3 api.py\n    log: {max_size: 10M}\n",
        &[
            "4:21: `max_size` is the text `10M`, expected a size such as `64KiB` or `10MiB` | write a whole number with B, KiB, MiB, GiB, kB, MB or GB",
        ],
    );
    // A period that is too long.
    check(
        "services:\n  api:\n    command: python3 api.py\n    start_timeout: 999999999999d\n",
        &[
            "4:20: cannot read \"999999999999d\" as a period, expected a number and a unit such as 500ms, 30s, 5m, 1h30m or 7d",
        ],
    );
}

#[test]
fn dependencies() {
    // An unknown dependency.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: [dp]\n  db:\n    command: x\n",
        &["4:18: there is no service `dp` | did you mean `db`?"],
    );
    // A dependency as text.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: db\n  db:\n    command: x\n",
        &["4:17: `depends_on` is the text `db`, expected a list or a map of keys | write `[db]`"],
    );
    // A condition that is none.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: {db: ready}\n  db:\n    command: x\n",
        &[
            "4:22: `db` is the text `ready`, expected `started`, `healthy` or `completed` | did you mean `healthy`?",
        ],
    );
    // A condition of compose.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: {db: {condition: healthy}}\n  db:\n    command: x\n",
        &[
            "4:18: `db` is a map of keys, expected `started`, `healthy` or `completed` | write the word behind the key",
        ],
    );
    // A service that waits for itself.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: [api]\n",
        &["4:18: `api` waits for itself | remove it here"],
    );
    // A cycle.
    check(
        "services:\n  a:\n    command: x\n    depends_on: [b]\n  b:\n    command: x\n    depends_on: {c: started}\n  c:\n    command: x\n    depends_on: [a]\n",
        &[
            "4:18: these services wait for each other: a → b → c → a | remove one of these dependencies",
        ],
    );
    // A dependency that never completes.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: {db: completed}\n  db:\n    command: x\n",
        &[
            "4:18: `db` never completes, because it is always restarted | write `restart: on-failure` in `db`",
        ],
    );
    // A dependency without instances.
    check(
        "services:\n  api:\n    command: python3 api.py\n    depends_on: [db]\n  db:\n    command: x\n    instances: 0\n",
        &[
            "4:18: `db` has 0 instances, so that this waits for ever | give `db` an instance, or remove it here",
        ],
    );
}

#[test]
fn probes() {
    // A probe without a kind.
    check(
        "services:\n  api:\n    command: python3 api.py\n    readiness: {interval: 1s}\n",
        &[
            "4:5: the probe does not say what to look at | add `http`, `tcp`, `mqtt`, `grpc`, `dns`, `llm`, `exec`, `process`, `disk`, `gpu` or `log_line`",
        ],
    );
    // A probe with two kinds.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: auto}\n    readiness:\n      http: {}\n      tcp: {}\n",
        &["5:5: the probe has 2 kinds, expected one | keep one of `http` or `tcp`"],
    );
    // A line of output as liveness.
    check(
        "services:\n  api:\n    command: python3 api.py\n    liveness: {log_line: {contains: up}}\n",
        &[
            "4:16: `log_line` tells that something became ready, not that it still is | use `http`, `tcp`, `mqtt`, `grpc`, `dns`, `llm`, `exec`, `process`, `disk` or `gpu`",
        ],
    );
    // A probe that never rests.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: auto}\n    liveness: {http: {}, interval: 10ms, timeout: 0s}\n",
        &[
            "5:36: `interval` is 10ms, at least 100ms | write `100ms` or more",
            "5:51: `timeout` is 0s, so that each try fails | write for example `2s`",
        ],
    );
    // A probe without a port.
    check(
        "services:\n  api:\n    command: python3 api.py\n    liveness: {http: {path: /health}}\n",
        &[
            "4:16: the service has no port to look at | write `ports: {http: auto}` in the service, or `port:` here",
        ],
    );
    // A probe that must choose a port.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {grpc: auto, metrics: auto}\n    liveness: {tcp: {}}\n",
        &[
            "5:16: the service has several ports, and none of them is named `http` | name one `http`, or write `port:` here",
        ],
    );
    // A path that is an address.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: auto}\n    liveness: {http: {path: \"http://127.0.0.1:80/\"}}\n",
        &[
            "5:29: the path is `http://127.0.0.1:80/`, expected one that starts with `/` | write `host`, `port` and `path` apart; for https add `tls: {}`",
        ],
    );
    // A probe of text.
    check(
        "services:\n  api:\n    command: python3 api.py\n    readiness: http://localhost:8080/health\n",
        &[
            "4:16: `readiness` is the text `http://localhost:8080/health`, expected a map of keys | write `key: value` lines below the key, indented",
        ],
    );
    // A probe that comes too late.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: auto}\n    readiness: {http: {}, delay: 2m}\n",
        &[
            "5:34: `delay` is 2m, but it must be ready within `start_timeout`, which is 1m | make it shorter, or `start_timeout` longer",
        ],
    );
    // A probe of a shell.
    check(
        "services:\n  api:\n    command: python3 api.py\n    liveness: {exec: {command: \"curl -f localhost || exit 1\"}}\n",
        &[
            "4:32: no shell runs the command, so `||` does nothing | write `[sh, -c, \"curl -f localhost || exit 1\"]`",
        ],
    );
}

#[test]
fn ports() {
    // A port out of range.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: 80800}\n",
        &["4:19: `http` is the number 80800, expected a whole number from 1 to 65535"],
    );
    // A port that is mistyped.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: atuo}\n",
        &[
            "4:19: `http` is the text `atuo`, expected `auto`, a whole number from 1 to 65535 or a map of keys | did you mean `auto`?",
        ],
    );
    // A port without a name.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: 8080\n",
        &[
            "4:12: `ports` is the number 8080, expected a map of keys | write `key: value` lines below the key, indented",
        ],
    );
    // A list of ports.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: [\"8080:80\"]\n",
        &["4:5: `ports` is a list, expected a map of keys | write `key: value` lines without `- `"],
    );
    // One port for two instances.
    check(
        "services:\n  api:\n    command: python3 api.py\n    instances: 2\n    ports: {http: 8080}\n",
        &[
            "5:19: 2 instances cannot share the port 8080 | write `auto`, or `{number: 8080, held: true}`",
        ],
    );
    // One port for two services.
    check(
        "services:\n  api:\n    command: python3 api.py\n    ports: {http: 8080}\n  web:\n    command: x\n    ports: {http: 8080}\n",
        &[
            "7:19: the port 8080 is that of `http` of `api` too | choose another one, or write `auto`",
        ],
    );
}

#[test]
fn environment_topics_and_names() {
    // An environment as a list.
    check(
        "services:\n  api:\n    command: python3 api.py\n    environment: [DEBUG=1]\n",
        &[
            "4:5: `environment` is a list, expected a map of keys | write `key: value` lines without `- `",
        ],
    );
    // A name of a variable.
    check(
        "services:\n  api:\n    command: python3 api.py\n    environment: {my-var: x, ALICIA_KEY: y}\n",
        &[
            "4:19: `my-var` is no name of an environment variable | use letters, digits and `_`, and no digit at the start",
            "4:30: `ALICIA_KEY` is set by Alicia itself | choose a name that does not start with ALICIA_",
        ],
    );
    // A number that would change.
    check(
        "services:\n  api:\n    command: python3 api.py\n    environment: {VERSION: 1.10, ZIP: 01234, HASH: 12e03}\n",
        &[
            "4:28: `1.10` is a number, and would arrive in another form | write it in quotes: `\"1.10\"`",
            "4:52: `12e03` is a number, and would arrive in another form | write it in quotes: `\"12e03\"`",
        ],
    );
    // A variable of a list.
    check(
        "services:\n  api:\n    command: python3 api.py\n    environment: {PATHS: [a, b]}\n",
        &[
            "4:19: `PATHS` is a list, expected text such as `text`, a whole number such as `1883`, a number such as `0.5` or `true` or `false` | write one text, without `- `",
        ],
    );
    // A filter that is none.
    check(
        "services:\n  api:\n    command: python3 api.py\n    allow: {publish: [\"rooms/#/light\"], subscribe: [\"room+\", \"\", \"{prefix}/x\"]}\n",
        &[
            "4:23: `#` is not alone in the last level | write it as the last level: `rooms/#`",
            "4:53: `+` is not alone in its level | write it as a whole level: `rooms/+/light`",
            "4:62: the topic is empty | write for example `rooms/+/temperature`",
            "4:66: nothing is put in for braces in a topic | write `+` for any one level; the prefix is added by itself",
        ],
    );
    // A command to nobody.
    check(
        "services:\n  api:\n    command: python3 api.py\n    allow: {command: [wbe]}\n  web:\n    command: x\n",
        &["4:23: there is no service `wbe` | did you mean `web`?"],
    );
    // A reserved name.
    check(
        "services:\n  system:\n    command: x\n",
        &["2:3: the name `system` is reserved for Alicia itself | choose another name"],
    );
    // A signal without SIG.
    check(
        "services:\n  api:\n    command: python3 api.py\n    stop: {signal: TERM, grace: 10}\n",
        &[
            "4:20: `signal` is the text `TERM`, expected `SIGTERM`, `SIGINT`, `SIGQUIT`, `SIGHUP`, `SIGUSR1`, `SIGUSR2`, `SIGWINCH` or `SIGKILL` | did you mean `SIGTERM`?",
            "4:33: `grace` is the number 10, expected a period such as `30s` or `5m` | write `10s` for seconds",
        ],
    );
    // Back-off the wrong way round.
    check(
        "services:\n  api:\n    command: python3 api.py\n    back_off: {initial: 1m, max: 5s}\n",
        &[
            "4:25: `initial` is 1m, which is longer than `max` with 5s | make it shorter, or `max` longer",
        ],
    );
}

#[test]
fn the_text_itself() {
    // A truth value of YAML 1.1.
    check(
        "http: {listen: \"127.0.0.1:4000\", open: yes}\n",
        &["1:40: `open` is the text `yes`, expected `true` or `false` | write `true`"],
    );
    // A file that is a list.
    check(
        "- services\n",
        &["1:1: this is not a map of keys | begin with a key, such as `services:`"],
    );
    // The same key twice.
    check(
        "services:\n  api:\n    command: x\n    command: y\n",
        &[
            "4:5: the key `command` is here for the second time, first at line 3, column 5 | remove one of them",
        ],
    );
    // A tab.
    check(
        "services:\n\tapi:\n",
        &["2:1: found a tab in the indentation | indent with spaces"],
    );
    // Several at once.
    check(
        "nmae: home\nservices:\n  api:\n    command: 5\n    restart: allways\n  B:\n    command: x\n",
        &[
            "1:1: unknown key `nmae` | did you mean `name`?",
            "4:14: `command` is the number 5, expected text such as `python3 -u api.py` or a list such as `[python3, -u, api.py]` | write it in quotes: `\"5\"`",
            "5:14: `restart` is the text `allways`, expected `always`, `on-failure` or `never` | did you mean `always`?",
            "6:3: found the key `B`, expected a name of 1 to 63 characters out of a-z, 0-9 and `-` | write for example `b`",
        ],
    );
}
