//! Mistakes in kinds of probes, in objectives and in limits of agents.

use super::check;

#[test]
fn kinds_of_probes() {
    let probe = |probe: &str, expected: &[&str]| {
        let start = "services:\n  api:\n    command: python3 api.py\n    ports: {http: auto}\n    checks:\n      a: ";
        check(&format!("{start}{probe}\n"), expected);
    };
    // Everything well.
    probe(
        "{http: {json: {/a: {max: 1}, /b: ok}, headers: {A: b}, latency_max: 1s, tls: {}}}",
        &[],
    );
    probe("{mqtt: {}}", &[]);
    probe(
        "{mqtt: {host: 127.0.0.1, username: a, password_file: b}}",
        &[],
    );
    probe("{grpc: {}}", &[]);
    probe(
        "{dns: {name: example.org, type: MX, server: '192.0.2.53:5353'}}",
        &[],
    );
    probe("{llm: {model: small}, interval: 1m, timeout: 30s}", &[]);
    probe("{process: {cpu_max: 1.5, memory_max: 1GiB}}", &[]);
    probe("{disk: {free_percent_min: 10}}", &[]);
    probe("{gpu: {required: true, temperature_max: 85}}", &[]);
    // Patterns, pointers, headers, limits.
    probe(
        "{http: {body_matches: '('}}",
        &[
            "6:32: `(` is no regular expression: unclosed group | write `\\\\` before a sign that is meant as itself",
        ],
    );
    probe(
        "{http: {json: {a.b: 1}}}",
        &["6:18: `a.b` is no JSON pointer | write `/a/b`"],
    );
    probe(
        "{http: {json: {/a: {min: 2, max: 1}}}}",
        &["6:18: at `/a`, `min` is 2 and `max` is 1 | swap them"],
    );
    probe(
        "{http: {headers: {a b: c}}}",
        &["6:18: `a b` is no name of a header | write for example `Accept`"],
    );
    probe(
        "{http: {latency_max: 3s}}",
        &[
            "6:31: the limit is 3s, but a try ends after `timeout`, which is 2s | make it shorter, or `timeout` longer",
        ],
    );
    probe(
        "{http: {latency_max: 0s}}",
        &["6:31: the limit is 0s, so that each try is bad | write for example `500ms`"],
    );
    // Brokers, name servers, models.
    probe(
        "{mqtt: {topic: a/#}}",
        &["6:25: `a/#` is no topic to publish to | write a topic without `+` and `#`"],
    );
    probe(
        "{mqtt: {port: 1}}",
        &[
            "6:24: without `host` it is the house's own broker, which is known | remove it, or add `host:`",
        ],
    );
    probe(
        "{dns: {name: a..b, server: c}}",
        &[
            "6:23: `a..b` is no name of DNS | write labels of 1 to 63 signs with dots between",
            "6:37: `c` is no address of a name server | write for example `192.0.2.53` or `192.0.2.53:5353`",
        ],
    );
    probe(
        "{llm: {model: small}}",
        &[
            "6:7: `interval` is 1s, and each try costs tokens: at least 10s | write for example `1m`",
        ],
    );
    probe(
        "{disk: {path: ''}}",
        &["6:24: the path is empty | write `.` for the service's own directory"],
    );
}

#[test]
fn objectives_and_agents() {
    let with = |more: &str, expected: &[&str]| {
        let start = "services:\n  api:\n    command: python3 api.py\n";
        check(&format!("{start}{more}\n"), expected);
    };
    with("    slo: {availability: 99.9}", &[]);
    with(
        "    agent: {progress_within: 10m, cost_usd_per_hour_max: 5}",
        &[],
    );
    with(
        "    slo: {window: 30d}",
        &[
            "4:5: the objectives promise nothing | add `availability: 99.9`, or `latency: {target: 99, max: 200ms}`",
        ],
    );
    with(
        "    slo: {availability: 99.9, window: 1h}",
        &["4:39: `window` is 1h, expected 1d to 90d | write for example `30d`"],
    );
    with(
        "    slo: {latency: {target: 99, max: 1s, check: web}}",
        &["4:49: the service has no check named `web` | add it under `checks:`"],
    );
    with(
        "    agent: {within: 1s}",
        &["4:21: `within` is 1s, expected 1m to 1d | write a period from 1m to 1d"],
    );
}
