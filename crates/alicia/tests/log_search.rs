//! `alicia logs` over packed and plain files, with levels, times and traces; and one id through request, log and audit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use alicia_testkit::house::House;
use alicia_testkit::until;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// Some hundred KiB of lines, in files of 64 KiB.
const FILE: &str = r#"
services:
  talker:
    command:
      - sh
      - -c
      - |
        for i in $(seq 1 3000); do
          level=info; [ $((i % 1000)) = 0 ] && level=error
          printf '{"level":"%s","message":"request %s is done","trace_id":"%032x"}\n' $level $i $i
        done
        echo "WARNING: plain text" >&2
        exec sleep 1000
    log: {max_size: 64KiB}
  quiet:
    command: [sleep, '1000']
log: {level: 'info,alicia_host=debug'}
"#;

fn lines(house: &House, arguments: &[&str]) -> Vec<Value> {
    let said = house
        .says(&[&["logs", "--json"], arguments].concat())
        .exits(0);
    said.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn old_and_new_lines_are_found_by_level_time_text_and_trace() {
    let house = House::start(ALICIA, FILE).await;
    house.all_running().await;
    until("files are packed", || async {
        let directory = std::fs::read_dir(house.data().join("logs/talker")).unwrap();
        let names: Vec<_> = directory
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.iter().filter(|name| name.ends_with(".zst")).count() >= 3
    })
    .await;
    let all = lines(&house, &["talker", "-n", "10000"]);
    assert_eq!(all.len(), 3_001);
    let numbers = all.iter().filter_map(|line| line["message"].as_str());
    let expected: Vec<String> = (1..=3_000)
        .map(|number| format!("request {number} is done"))
        .collect();
    assert!(numbers.eq(expected.iter().map(String::as_str)));
    let errors = lines(&house, &["--level", "error"]);
    let traces: Vec<_> = errors
        .iter()
        .map(|line| line["trace"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        traces,
        [1000, 2000, 3000].map(|number: u32| format!("{number:032x}"))
    );
    let warned = lines(&house, &["--level", "warn", "--grep", "plain"]);
    assert!(
        matches!(&warned[..], [line] if line["stream"] == "stderr" && line["level"] == "warn"),
        "{warned:?}"
    );
    let id = format!("{:032x}", 77);
    let found = lines(&house, &["--trace", &id]);
    assert!(
        matches!(&found[..], [line] if line["message"] == "request 77 is done"),
        "{found:?}"
    );
    assert_eq!(lines(&house, &["--trace", &id[1..]]), Vec::<Value>::new());
    assert_eq!(lines(&house, &["--until", "1h"]), Vec::<Value>::new());
    assert_eq!(
        lines(&house, &["--since", "1h", "--grep", "request 2999 "]).len(),
        1
    );
    let (status, _) = house
        .get("/api/orchestrator/logs?tail=5&grep=request")
        .await;
    assert_eq!(status, 200);
    for (query, code) in [("level=loud", 422), ("tail=10001", 422), ("what=1", 422)] {
        let (status, problem) = house
            .get(&format!("/api/orchestrator/services/talker/logs?{query}"))
            .await;
        assert_eq!(status, code, "{problem}");
    }
}

#[tokio::test]
async fn one_id_is_in_the_answer_the_log_and_the_audit_row() {
    let house = House::start(ALICIA, FILE).await;
    house.all_running().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http
        .post(format!(
            "{}/api/orchestrator/services/quiet/restart",
            house.api()
        ))
        .bearer_auth(house.key())
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&json!({}));
    let answer = request.send().await.unwrap();
    let echoed = answer.headers()["traceparent"].to_str().unwrap();
    assert!(
        answer.status().is_success() && echoed.starts_with(&format!("00-{trace}-")),
        "{echoed}"
    );
    let (_, page) = house.get(&format!("/api/audit?grep={trace}")).await;
    assert_eq!(page["rows"][0]["action"], "orchestrator.restart", "{page}");
    let said = lines(&house, &["--host", "--trace", trace]);
    assert!(
        said.iter()
            .any(|line| line["message"] == "request" && line["trace"] == trace),
        "{said:?}"
    );
    // Bad ids are replaced, not passed on.
    let request = http
        .get(format!("{}/health", house.api()))
        .header("traceparent", "<script>");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["traceparent"].to_str().unwrap().len(), 55);
}
