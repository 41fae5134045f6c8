//! Causes, with real processes: what they say, how they end, and what follows.

use alicia_contract::orchestrator::InstanceState::{Failed, Parked, Paused, Running, Waiting};
use alicia_contract::orchestrator::{ExitCause, Explanation, InstanceStatus, StepKind};
use alicia_orchestrator::Config;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{House, eventually, shell};

/// A program that speaks on its notify socket; none where Python is not installed.
fn speaker(script: &str) -> Option<Value> {
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let Some(python) = python else {
        assert!(
            std::env::var_os("ALICIA_REQUIRE_ALL").is_none(),
            "python3 is not installed"
        );
        eprintln!("python3 is not installed: what programs say is not tested");
        return None;
    };
    let prelude = "import os, socket, sys, time\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        a = os.environ['NOTIFY_SOCKET']\n\
        s.connect('\\0' + a[1:] if a[0] == '@' else a)\n\
        say = lambda *words: s.send('\\n'.join(words).encode())\n";
    Some(json!([python, "-c", format!("{prelude}{script}")]))
}

#[tokio::test]
async fn a_providers_limit_parks_and_a_person_may_resume() {
    let script = "echo once >> runs; [ $(wc -l < runs) -ge 2 ] && exec sleep 1000; exit 75";
    let house = House::new(json!({ "agent": { "command": shell(script) } })).await;
    let parked = house.until("agent", 1, |agent| agent.state == Parked).await;
    let exit = parked.exit.expect("it ended");
    assert_eq!(exit.class, ExitCause::ProviderLimit);
    assert_eq!(
        exit.cause,
        "exit code 75: a provider asks for fewer requests"
    );
    assert_eq!(parked.restarts, 0);
    let wait = parked.next_start.expect("a time") - exit.at;
    assert!((59.0..61.5).contains(&wait), "{wait}");
    eventually("it is written down", async || {
        let (_, view) = house.get("/services/agent").await;
        view["transitions"][0]["to"] == "parked"
    })
    .await;
    let home = house.crash().await;
    let spec = json!({ "agent": { "command": shell(script) } });
    let house = House::open(home, spec, Config::default()).await;
    let still = house.until("agent", 1, |agent| agent.state == Parked).await;
    assert_eq!(still.next_start, parked.next_start, "it stays parked");
    let (status, answer) = house.post("/services/agent/resume", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    house.until_running("agent", 1).await;
    house.finish().await;
}

#[tokio::test]
async fn the_last_lines_tell_what_nothing_else_does() {
    let limit = "echo 'error: HTTP 429 Too Many Requests (retry-after: 3600)' >&2; exit 1";
    let talk = "echo 'INFO got 429, retry-after: 3600, going on'; echo done; exit 1";
    let taken = "echo 'OSError: [Errno 98] Address already in use' >&2; exit 1";
    let never = json!({ "starts": 1, "give_up": true });
    let house = House::new(json!({
        "limit": { "command": shell(limit) },
        "talk": { "command": shell(talk), "start_limit": never },
        "taken": { "command": shell(taken), "start_limit": never },
    }))
    .await;
    let parked = house.until("limit", 1, |it| it.state == Parked).await;
    let exit = parked.exit.expect("it ended");
    let wait = exit.resume_at.expect("a time") - exit.at;
    assert!((wait - 3_600.0).abs() < 0.01, "{wait}");
    for (service, class) in [("talk", ExitCause::Crash), ("taken", ExitCause::PortTaken)] {
        let failed = house.until(service, 1, |it| it.state == Failed).await;
        assert_eq!(failed.exit.expect("it ended").class, class, "{service}");
    }
    house.finish().await;
}

#[tokio::test]
async fn what_an_earlier_run_said_is_no_cause_of_a_later_end() {
    let first = "echo 'error: HTTP 429 Too Many Requests (retry-after: 1)' >&2";
    let script = format!("[ -e ran ] || {{ touch ran; {first}; }}; exit 1");
    let never = json!({ "starts": 1, "give_up": true });
    let house = House::new(json!({ "agent": { "command": shell(&script), "start_limit": never } }));
    let house = house.await;
    house.until("agent", 1, |it| it.state == Parked).await;
    let failed = house.until("agent", 1, |it| it.state == Failed).await;
    assert_eq!(failed.exit.expect("it ended").class, ExitCause::Crash);
    house.finish().await;
}

#[tokio::test]
async fn it_is_ready_when_it_says_so_and_its_watchdog_must_be_fed() {
    let Some(command) = speaker(
        "say('STATUS=loads a model')\n\
         while not os.path.exists('go'): time.sleep(0.01)\n\
         say('READY=1', 'STATUS=at work')\n\
         while not os.path.exists('hang'): say('WATCHDOG=1'); time.sleep(0.02)\n\
         time.sleep(1000)\n",
    ) else {
        return;
    };
    let house = House::new(json!({ "agent": {
        "command": command, "readiness": { "notify": true }, "liveness": { "watchdog": "500ms" },
        "back_off": { "initial": "1m" },
    } }))
    .await;
    let loads = |text: &'static str| {
        move |it: &alicia_contract::orchestrator::InstanceStatus| it.says.as_deref() == Some(text)
    };
    let starting = house.until("agent", 1, loads("loads a model")).await;
    assert_ne!(starting.state, Running);
    let base = house.paths.base().to_owned();
    std::fs::write(base.join("go"), "").expect("written");
    let ready = house.until("agent", 1, loads("at work")).await;
    let old = house.until_running("agent", 1).await;
    assert_eq!(old.pid, ready.pid);
    std::fs::write(base.join("hang"), "").expect("written");
    let ended = house.until("agent", 1, |agent| agent.exit.is_some()).await;
    assert_eq!(ended.exit.expect("it ended").class, ExitCause::Watchdog);
    house.finish().await;
}

#[tokio::test]
async fn an_agent_that_repeats_itself_is_restarted_and_goes_on_where_it_was() {
    let Some(command) = speaker(
        "state = os.environ['ALICIA_STATE_DIR']\n\
         told = f\"{os.environ['ALICIA_EPOCH']} {os.environ.get('ALICIA_RESUME')} {sys.argv[1:]}\\n\"\n\
         open(state + '/told', 'a').write(told)\n\
         say('READY=1')\n\
         n = 0\n\
         while True:\n\
        \x20   n += 1\n\
        \x20   done = os.environ.get('ALICIA_RESUME') and n\n\
        \x20   say(f'X_ALICIA_STEPS={n}', f'X_ALICIA_ACTION=try {done or 1}')\n\
        \x20   time.sleep(0.01)\n",
    ) else {
        return;
    };
    let house = House::new(json!({ "agent": {
        "command": command, "readiness": { "notify": true },
        "progress": { "repeat": 5 },
        "session": { "resume_arguments": ["--from", "{state}/told"] },
    } }))
    .await;
    let back = house
        .until("agent", 1, |agent| {
            agent.restarts == 1 && agent.state == Running
        })
        .await;
    let exit = back.exit.expect("it ended");
    assert_eq!(exit.class, ExitCause::Progress);
    assert_eq!(exit.cause, "the same action 5 times in a row: try 1");
    let working = house
        .until("agent", 1, |agent| {
            agent.work.as_ref().is_some_and(|work| work.steps > 20.0)
        })
        .await;
    assert_eq!(working.restarts, 1, "now it gets on");
    let state = house.paths.data().join("state/agent/1");
    let told = std::fs::read_to_string(state.join("told")).expect("it was written");
    let from = format!("['--from', '{}/told']", state.display());
    assert_eq!(told, format!("1 None []\n2 1 {from}\n"));
    house.finish().await;
}

#[tokio::test]
async fn what_is_paused_is_held_still_over_a_crash_of_the_host_and_goes_on() {
    let services = json!({ "agent": { "command": "sleep 1000" } });
    let house = House::new(services.clone()).await;
    let pid = house.pid("agent", 1).await;
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    };
    let (status, answer) = house.post("/pause?service=agent", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    house.until("agent", 1, |agent| agent.state == Paused).await;
    eventually("it is held still", async || is_stopped()).await;
    eventually("it is written down", async || {
        let (_, view) = house.get("/services/agent").await;
        view["transitions"][0]["to"] == "paused"
    })
    .await;
    let home = house.crash().await;
    let house = House::open(home, services, Config::default()).await;
    let paused = house.until("agent", 1, |agent| agent.pid.is_some()).await;
    assert_eq!((paused.state, paused.pid), (Paused, Some(pid)));
    house.post("/services/agent/resume", json!({})).await;
    house.until_running("agent", 1).await;
    eventually("it runs", async || !is_stopped()).await;
    assert_eq!(house.pid("agent", 1).await, pid, "it is the same run");
    house.finish().await;
}

#[tokio::test]
async fn the_last_lines_of_an_end_are_those_of_the_run_that_ended() {
    let speaks_once = "[ -e spoke ] && exit 4; touch spoke; echo out of paper; exit 3";
    let spec = |command: Value| json!({ "db": { "command": command, "restart": "never" } });
    let house = House::new(spec(shell(speaks_once))).await;
    let failed = async |house: &House, epoch: u64| {
        let is_it = |db: &InstanceStatus| db.state == Failed && db.epoch.0 == epoch;
        house.until("db", 1, is_it).await;
    };
    failed(&house, 1).await;
    house.post("/services/db/start", json!({})).await;
    failed(&house, 2).await;
    // One that never came to have a process said nothing at all.
    house.change(spec(json!(["nosuchprogram"])));
    let never_ran = |db: &InstanceStatus| db.state == Failed && db.reason.contains("nosuchprogram");
    house.until("db", 1, never_ran).await;
    let mut ends = Vec::new();
    eventually("the history follows behind", async || {
        let (_, told) = house.get("/services/db/explain").await;
        let told: Explanation = serde_json::from_value(told).expect("an explanation");
        let steps = told.slots[0].steps.iter();
        ends = steps
            .filter(|step| step.kind == StepKind::Exit)
            .map(|step| step.last_lines.clone())
            .collect();
        ends.len() == 3
    })
    .await;
    assert_eq!(ends, [vec!["out of paper".to_owned()], vec![], vec![]]);
    house.finish().await;
}

#[tokio::test]
async fn the_story_goes_through_dependencies_to_the_first_cause() {
    let house = House::new(json!({
        "web": { "command": "sleep 1000", "depends_on": ["api"] },
        "api": { "command": "sleep 1000", "depends_on": ["db"], "instances": 2 },
        "db": { "command": shell("echo the disk is full >&2; exit 78"),
                "readiness": { "log_line": { "contains": "ready" } } },
    }))
    .await;
    house.until("db", 1, |db| db.state == Failed).await;
    house
        .post(
            "/services/db/start?reason=the%20disk%20has%20room",
            json!({}),
        )
        .await;
    house
        .until("db", 1, |db| db.state == Failed && db.epoch.0 == 2)
        .await;
    assert_eq!(house.state("web", 1).await, Some(Waiting));
    let explain = async |path: &str| -> Explanation {
        let (status, body) = house.get(path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_value(body).expect("an explanation")
    };
    let mut story = None;
    eventually("the history follows behind", async || {
        let told = explain("/services/web/explain").await;
        let db = &told.held_back_by[0].held_back_by[0];
        let ends = |step: &&alicia_contract::orchestrator::Step| !step.cause.is_unknown();
        let is_whole = db.slots[0].steps.iter().filter(ends).count() == 2;
        story = Some(told);
        is_whole
    })
    .await;
    let told = story.expect("a story");
    assert!(
        told.summary
            .contains("It comes down to this: db-1 is failed"),
        "{}",
        told.summary
    );
    let api = &told.held_back_by[0];
    assert_eq!((api.service.as_str(), api.slots.len()), ("api", 2));
    let db = &api.held_back_by[0].slots[0];
    let exit = db
        .steps
        .iter()
        .rfind(|step| step.cause == ExitCause::Configuration)
        .expect("its end");
    assert_eq!(
        exit.text,
        "it ended: exit code 78: its configuration is wrong"
    );
    assert_eq!(exit.last_lines, ["the disk is full"]);
    let command = db
        .steps
        .iter()
        .find(|step| step.by.is_some())
        .expect("a command");
    assert_eq!(
        command.text,
        "key/admin asked to start it: the disk has room"
    );
    let next = db.next.as_deref().expect("a next step");
    assert!(next.contains("it is tried again in"), "{next}");
    let one = explain("/services/api/explain?slot=2").await;
    assert_eq!(one.slots.len(), 1);
    let refused = |path: &'static str, code: &'static str| {
        let house = &house;
        async move {
            let (status, problem) = house.get(path).await;
            assert_eq!(
                (status.as_u16(), problem["code"].as_str()),
                (404, Some(code))
            );
            problem["detail"].as_str().unwrap_or_default().to_owned()
        }
    };
    let detail = refused("/services/wep/explain", "orchestrator.unknown_service").await;
    assert!(detail.contains("there is `web`"), "{detail}");
    let detail = refused("/services/api/explain?slot=9", "orchestrator.unknown_slot").await;
    assert!(detail.contains("api-1, api-2"), "{detail}");
    house.finish().await;
}

#[tokio::test]
async fn a_group_is_restarted_as_one_and_escalates() {
    let spec = |name: &str| {
        json!({ "command": "sleep 1000", "groups": ["team"], "labels": { "x": name },
                "back_off": { "initial": "1ms", "max": "1ms" } })
    };
    let house =
        House::new(json!({ "a": spec("a"), "b": spec("b"), "c": { "command": "sleep 1000" } }))
            .await;
    house.fleet.send_modify(|fleet| {
        let mut changed = alicia_contract::fleet::Fleet::clone(fleet);
        changed.groups = serde_json::from_value(json!({
            "team": { "supervision": { "strategy": "one-for-all", "restarts": 2 } },
        }))
        .expect("groups");
        *fleet = std::sync::Arc::new(changed);
    });
    let alone = house.pid("c", 1).await;
    for _ in 0..2 {
        let (a, b) = (house.pid("a", 1).await, house.pid("b", 1).await);
        crate::support::send(a, rustix::process::Signal::KILL);
        let is_new = |old: u32| {
            move |it: &alicia_contract::orchestrator::InstanceStatus| {
                it.state == Running && it.pid.is_some_and(|pid| pid != old)
            }
        };
        house.until("a", 1, is_new(a)).await;
        let b = house.until("b", 1, is_new(b)).await;
        assert_eq!(b.exit.expect("it ended").class, ExitCause::Supervision);
    }
    let a = house.pid("a", 1).await;
    house.pid("b", 1).await;
    crate::support::send(a, rustix::process::Signal::KILL);
    for service in ["a", "b"] {
        let failed = house.until(service, 1, |it| it.state == Failed).await;
        assert!(failed.next_start.is_some(), "{service} is tried again");
        assert!(
            failed
                .reason
                .contains("the group team was restarted too often"),
            "{}",
            failed.reason
        );
    }
    assert_eq!(house.pid("c", 1).await, alone);
    house.finish().await;
}
