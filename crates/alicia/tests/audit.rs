//! The audit log of a whole house: every action leaves a row, what cannot be written down is not done, and who changes the
//! files is found.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use alicia_contract::orchestrator::InstanceState;
use alicia_store::rusqlite::Connection;
use alicia_testkit::house::{House, has};
use alicia_testkit::until;
use serde_json::{Value, json};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const FILE: &str = "
services:
  api:
    command: [sleep, '1000']
";

/// The rows that have this in them, newest first.
async fn rows(house: &House, query: &str) -> Vec<Value> {
    let (status, page) = house.get(&format!("/api/audit?limit=1000&{query}")).await;
    assert_eq!(status, 200, "{page}");
    page["rows"].as_array().unwrap().clone()
}

async fn has_row(house: &House, query: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let found = std::cell::RefCell::new(None);
    until(&format!("there is a row: {query}"), || async {
        let row = rows(house, query).await.into_iter().find(|row| is_it(row));
        found.replace(row).is_some() || found.borrow().is_some()
    })
    .await;
    found.into_inner().unwrap()
}

fn tamper(database: &Path, sql: &str) {
    let connection = Connection::open(database).unwrap();
    connection
        .busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    connection.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn every_action_and_every_refusal_leaves_a_row() {
    let house = House::start(ALICIA, FILE).await;
    house.all_running().await;
    let did = |line: &[&str]| drop(house.says(line).exits(0));
    did(&["restart", "api"]);
    did(&["scale", "api", "2"]);
    did(&["stop", "api"]);
    did(&["start", "api"]);
    did(&["key", "create", "reader", "--scope", "read"]);
    did(&["reload"]);
    for action in ["restart", "scale", "stop", "start"] {
        let row = has_row(&house, &format!("grep=orchestrator.{action}"), |_| true).await;
        assert_eq!(
            (&row["actor"], &row["outcome"]),
            (&json!("key/admin"), &json!("done")),
            "{row}"
        );
        assert!(
            row["target"] == "service:api" && row["module"] == "orchestrator",
            "{row}"
        );
        assert!(
            row["origin"]
                .as_str()
                .unwrap()
                .starts_with("rest 127.0.0.1:"),
            "{row}"
        );
        assert_eq!(row["trace"].as_str().unwrap().len(), 32, "{row}");
    }
    for target in ["/api/keys", "/api/host/reload"] {
        let row = has_row(&house, &format!("module=host&grep={target}"), |row| {
            row["target"] == target
        })
        .await;
        assert_eq!(
            (&row["actor"], &row["outcome"]),
            (&json!("key/admin"), &json!("done")),
            "{row}"
        );
    }
    // A command by message is written down as one over REST.
    house
        .says(&[
            "bus",
            "pub",
            "alicia/system/orchestrator/restart",
            r#"{"services": ["api"], "reason": "by message"}"#,
        ])
        .exits(0);
    let row = has_row(&house, "grep=by message", |_| true).await;
    assert_eq!(
        (&row["actor"], &row["origin"]),
        (&json!("key/admin"), &json!("bus")),
        "{row}"
    );
    // The reader may look, and no more; a stranger not even that.
    let (_, created) = house
        .post("/api/keys", &json!({"name": "looker", "scope": "read"}))
        .await;
    let key = created["key"].as_str().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let stop = format!("{}/api/orchestrator/services/api/stop", house.api());
    for _ in 0..50 {
        let answer = http
            .post(&stop)
            .bearer_auth(key)
            .json(&json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 403);
        let answer = http
            .post(&stop)
            .bearer_auth("alk_x_y_z")
            .json(&json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 401);
    }
    for (actor, code) in [
        ("key/looker", "host.forbidden"),
        ("stranger", "host.unauthenticated"),
    ] {
        let row = has_row(&house, &format!("by={actor}&outcome=denied"), |_| true).await;
        assert_eq!(row["detail"]["code"], code, "{row}");
        // Fifty refusals of one kind do not fill the log.
        assert!(rows(&house, &format!("by={actor}")).await.len() <= 2);
    }
    // What is asked for and cannot be done is there too.
    let (status, _) = house
        .post("/api/orchestrator/services/nobody/stop", &json!({}))
        .await;
    assert_eq!(status, 404);
    let row = has_row(&house, "outcome=failed&grep=nobody", |_| true).await;
    assert_eq!(
        (&row["actor"], &row["detail"]["status"]),
        (&json!("key/admin"), &json!(404)),
        "{row}"
    );
    // The key itself is nowhere in it.
    let said = house
        .says(&["audit", "tail", "-n", "1000", "--json"])
        .exits(0);
    assert!(said.stdout.contains("key/looker") && !said.stdout.contains(key));
}

#[tokio::test]
async fn pages_follow_each_other_and_nothing_is_shown_twice() {
    let house = House::start(ALICIA, FILE).await;
    for number in 0..12 {
        let name = format!("k{number}");
        house.says(&["key", "create", &name]).exits(0);
    }
    let all = rows(&house, "module=host").await;
    assert!(all.len() >= 12);
    let (mut paged, mut before) = (Vec::new(), String::new());
    loop {
        let (_, page) = house
            .get(&format!("/api/audit?limit=5&module=host{before}"))
            .await;
        paged.extend(page["rows"].as_array().unwrap().clone());
        match page["before"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    let ids = |rows: &[Value]| {
        rows.iter()
            .map(|row| row["id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let newer = paged.len() - all.len();
    assert_eq!(ids(&paged)[newer..], ids(&all)[..]);
    for query in [
        "limit=0",
        "limit=1001",
        "before=x",
        "outcome=maybe",
        "since=tomorrow",
        "what=1",
    ] {
        let (status, problem) = house.get(&format!("/api/audit?{query}")).await;
        assert_eq!(status, 422, "{query}: {problem}");
    }
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let house = House::start(ALICIA, FILE).await;
    house.all_running().await;
    let data = house.data().join("data");
    tamper(&data.join("host.db"), "ALTER TABLE audit RENAME TO away");
    let (status, problem) = house
        .post("/api/keys", &json!({"name": "x", "scope": "admin"}))
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("host.audit_unavailable")),
        "{problem}"
    );
    let (_, keys) = house.get("/api/keys").await;
    assert!(
        keys.as_array()
            .unwrap()
            .iter()
            .all(|key| key["name"] != "x"),
        "{keys}"
    );
    house
        .says(&["secret", "set", "a", "--generate"])
        .exits(1)
        .tells(&["host.audit_unavailable"]);
    tamper(&data.join("host.db"), "ALTER TABLE away RENAME TO audit");
    let (status, _) = house
        .post("/api/keys", &json!({"name": "x", "scope": "admin"}))
        .await;
    assert_eq!(status, 201);
    tamper(
        &data.join("orchestrator.db"),
        "ALTER TABLE audit RENAME TO away",
    );
    house
        .says(&["stop", "api"])
        .exits(1)
        .tells(&["orchestrator.internal"]);
    let row = house.row("api-1").await.unwrap();
    assert_eq!(row.state, InstanceState::Running);
    tamper(
        &data.join("orchestrator.db"),
        "ALTER TABLE away RENAME TO audit",
    );
    house.says(&["stop", "api"]).exits(0);
}

#[tokio::test]
async fn a_fleet_whose_audit_log_cannot_be_written_can_be_ended() {
    let mut house = House::start(ALICIA, FILE).await;
    house.all_running().await;
    let (_, created) = house
        .post("/api/keys", &json!({"name": "hand", "scope": "operate"}))
        .await;
    let key = created["key"].as_str().unwrap();
    let database = house.data().join("data/host.db");
    tamper(&database, "ALTER TABLE audit RENAME TO away");
    let (status, problem) = house.post("/api/host/reload", &json!({})).await;
    assert_eq!(
        (status, &problem["code"]),
        (503, &json!("host.audit_unavailable")),
        "{problem}"
    );
    // Who may not end it may not now either.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http
        .post(format!("{}/api/host/stop", house.api()))
        .bearer_auth(key)
        .json(&json!({}))
        .send();
    assert_eq!(answer.await.unwrap().status(), 403);
    let row = house.row("api-1").await.unwrap();
    assert_eq!(row.state, InstanceState::Running);
    house.says(&["down"]).exits(0).tells(&[
        "the services end, then the host",
        "warning: that the host was ended is not in the audit log",
        "ended",
    ]);
    assert!(house.host_ended().await.success());
    assert!(house.processes().is_empty(), "nothing is left");
}

#[tokio::test]
async fn the_row_that_was_missing_is_written_when_the_services_have_ended() {
    let file = "
services:
  api:
    command: [sh, -c, \"trap 'while ! test -e go; do sleep 0.05; done; exit 0' TERM; while :; do sleep 0.05; done\"]
    stop: {grace: 5m}
";
    let mut house = House::start(ALICIA, file).await;
    house.all_running().await;
    let database = house.data().join("data/host.db");
    tamper(&database, "ALTER TABLE audit RENAME TO away");
    let (status, done) = house.post("/api/host/stop", &json!({})).await;
    assert_eq!(status, 202, "{done}");
    let warning = done["warning"].as_str().unwrap();
    assert!(warning.contains("is not in the audit log"), "{warning}");
    tamper(&database, "ALTER TABLE away RENAME TO audit");
    std::fs::write(house.path().join("go"), "").unwrap();
    assert!(house.host_ended().await.success());
    let connection = Connection::open(&database).unwrap();
    let (actor, detail): (String, String) = connection
        .query_row(
            "SELECT actor, detail FROM audit WHERE target = '/api/host/stop'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!(actor, "key/admin");
    assert!(detail.contains("asked_unix_us"), "{detail}");
    drop(connection);
    house.says(&["audit", "verify"]).exits(0);
}

/// A small file system, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs"])
            .arg(&at)
            .output();
        let is_mounted = mount.is_ok_and(|mount| mount.status.success());
        has(is_mounted, "mounting a tmpfs needs root").then_some(Self(at))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        while ballast.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmount = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmount.unwrap().success());
    }
}

#[tokio::test]
async fn a_fleet_on_a_full_disk_can_be_ended() {
    let mut house = House::new(ALICIA, FILE);
    let Some(disk) = SmallDisk::mount(house.data()) else {
        return;
    };
    house.start_host().await;
    house.all_running().await;
    disk.fill();
    house
        .says(&["secret", "set", "a", "--generate"])
        .exits(1)
        .tells(&["see whether the disk is full"]);
    house
        .says(&["down"])
        .exits(0)
        .tells(&["warning: that the host was ended is not in the audit log"]);
    assert!(house.host_ended().await.success());
    assert!(house.processes().is_empty(), "nothing is left");
}

#[tokio::test]
async fn the_log_is_verified_with_a_host_and_without() {
    let mut house = House::start(ALICIA, FILE).await;
    house.says(&["restart", "api"]).exits(0);
    until("there is a checkpoint", || async {
        house.get("/api/audit/checkpoint").await.0 == 200
    })
    .await;
    house
        .says(&["audit", "verify"])
        .exits(0)
        .tells(&["the audit log is whole"]);
    let (status, verdict) = house.get("/api/audit/verify").await;
    assert_eq!((status, &verdict["ok"]), (200, &json!(true)), "{verdict}");
    // The retained message is the witness that anybody can keep.
    let heard = house.says(&[
        "bus",
        "sub",
        "--retained",
        "--count",
        "1",
        "--json",
        "alicia/system/audit/checkpoint",
    ]);
    assert!(heard.stdout.contains("signature"), "{heard}");
    house.says(&["down"]).exits(0);
    assert!(house.host_ended().await.success());
    let verdict = house.says(&["audit", "verify", "--json"]).exits(0).json();
    let orchestrator = |verdict: &Value| {
        let chains = verdict["chains"].as_array().unwrap();
        chains
            .iter()
            .find(|chain| chain["module"] == "orchestrator")
            .unwrap()
            .clone()
    };
    // The last rows got their witness when the host ended.
    assert!(
        orchestrator(&verdict)["witnesses"].as_u64().unwrap() > 0,
        "{verdict}"
    );
    let database = house.data().join("data/orchestrator.db");
    let copy = std::fs::read(&database).unwrap();
    let check = |sql: &str, words: &[&str]| {
        tamper(&database, sql);
        house.says(&["audit", "verify"]).exits(1).tells(words);
        let verdict = house.says(&["audit", "verify", "--json"]).exits(1).json();
        assert!(
            !orchestrator(&verdict)["faults"]
                .as_array()
                .unwrap()
                .is_empty(),
            "{verdict}"
        );
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(format!("{}{suffix}", database.display())).ok();
        }
        std::fs::write(&database, &copy).unwrap();
    };
    let cut =
        "DROP TRIGGER audit_is_never_cut; DELETE FROM audit WHERE id = (SELECT max(id) FROM audit);
               UPDATE sqlite_sequence SET seq = seq - 1 WHERE name = 'audit'";
    check(cut, &["NOT WHOLE", "the end was cut off"]);
    let edit =
        "DROP TRIGGER audit_is_never_edited; UPDATE audit SET actor = 'key/somebody' WHERE id = 1";
    check(edit, &["row 1 does not fit"]);
    house.says(&["audit", "verify"]).exits(0);
    let checkpoints = house.data().join("audit/checkpoints.jsonl");
    let lines = std::fs::read_to_string(&checkpoints).unwrap();
    std::fs::write(&checkpoints, lines.replacen("\"rows\":", "\"rows\":1", 1)).unwrap();
    house
        .says(&["audit", "verify"])
        .exits(1)
        .tells(&["its signature is not that of the key"]);
    std::fs::write(&checkpoints, &lines).unwrap();
    std::fs::remove_file(&database).unwrap();
    house
        .says(&["audit", "verify"])
        .exits(1)
        .tells(&["the database is gone"]);
}
