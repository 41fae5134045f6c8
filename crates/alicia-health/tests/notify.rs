//! Notifications to real receivers: our own over HTTP, an Alertmanager, a mail server.

#[path = "notify/mail.rs"]
mod mail;
#[path = "notify/receiver.rs"]
mod receiver;
#[expect(dead_code, reason = "the tests of notifications need a part of it")]
#[path = "bus/world.rs"]
mod world;

use std::process::{Child, Command, Stdio};

use alicia_contract::health::{ALERT_REQUESTS, AlertRequest, AlertState};
use alicia_contract::orchestrator::InstanceState;
use alicia_health::{Config, HealthModule};
use alicia_testkit::{Bench, PATIENCE, Running, until};
use receiver::Receiver;
use serde_json::{Value, json};
use world::{Listener, World};

/// Quick enough for tests; the order of the spans is that of the defaults.
fn config(parts: Value) -> Config {
    let mut all = json!({
        "stable_after": "1s", "down_after": "2s", "hold_back": "2s",
        "notifications": { "group_wait": "1s", "group_interval": "1s" },
    });
    for (name, part) in parts.as_object().expect("an object") {
        all[name] = part.clone();
    }
    let config: Config = serde_json::from_value(all).expect("a section");
    let faults = <HealthModule as alicia_module::Module>::validate(&config, &Default::default());
    assert_eq!(faults, []);
    config
}

fn hook(receiver: &Receiver) -> Value {
    json!({ "hook": { "webhook": { "url": receiver.url() }, "allow_private": true } })
}

macro_rules! bench {
    () => {
        match Bench::with_mosquitto().await {
            Some(bench) => bench,
            None => return,
        }
    };
}

/// A fleet of one service that runs, watched with this section.
async fn watched(bench: &Bench, parts: Value) -> (World, Running<HealthModule>) {
    let mut world = World::new(bench, &["api"]).await;
    let monitor = bench.start::<HealthModule>(config(parts)).await;
    world.start("api").await;
    monitor.is_well().await;
    (world, monitor)
}

async fn notifications(monitor: &Running<HealthModule>, query: &str) -> Vec<Value> {
    let path = format!("/notifications{query}");
    let (status, page) = monitor.admin("GET", &path, &Value::Null).await;
    assert_eq!(status, 200, "{page}");
    page["notifications"].as_array().cloned().expect("a list")
}

async fn first_alert(monitor: &Running<HealthModule>) -> String {
    let firing = async || {
        let (_, page) = monitor
            .admin("GET", "/alerts?active=true", &Value::Null)
            .await;
        page["alerts"][0]["id"].as_str().map(str::to_owned)
    };
    until("an alert fires", async || firing().await.is_some()).await;
    firing().await.expect("it fires")
}

#[tokio::test]
async fn a_webhook_is_signed_and_told_of_the_beginning_and_the_end() {
    let bench = bench!();
    let receiver = Receiver::start().await;
    std::fs::write(
        bench.path().join("hook.key"),
        "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0ISE=\n",
    )
    .expect("written");
    let mut channels = hook(&receiver);
    channels["hook"]["webhook"]["secret_file"] = json!("hook.key");
    let (mut world, monitor) = watched(&bench, json!({ "channels": channels })).await;
    world.enter("api", InstanceState::Failed).await;
    let first = receiver.has(1).await.remove(0);
    assert_eq!(first.json()["alerts"][0]["rule"], "crash_loop");
    // Somebody else's HMAC says that the signature is right.
    let check = Command::new("python3")
        .args([
            "-c",
            "import base64,hashlib,hmac,sys\n\
             key=base64.b64decode('c2VjcmV0IG9mIHRoZSB0ZXN0ISE=')\n\
             print('v1,'+base64.b64encode(hmac.new(key,sys.argv[1].encode(),hashlib.sha256).digest()).decode())",
            &format!("{}.{}.{}", first.header("webhook-id"), first.header("webhook-timestamp"), first.text),
        ])
        .output()
        .expect("python3 runs");
    let expected = String::from_utf8(check.stdout).expect("a text");
    assert_eq!(first.header("webhook-signature"), expected.trim());
    let age_s = alicia_module::Clock::system().unix()
        - first
            .header("webhook-timestamp")
            .parse::<f64>()
            .expect("a number");
    assert!((-1.0..60.0).contains(&age_s), "{age_s}");
    world.start("api").await;
    receiver.has(2).await;
    assert_eq!(
        receiver.told(),
        ["new firing service=api", "resolved resolved service=api"]
    );
    until("both are on the record", async || {
        notifications(&monitor, "?delivery=delivered").await.len() == 2
    })
    .await;
    let metrics = monitor.metrics();
    assert!(
        metrics.contains(
            "alicia_health_notifications_total{channel=\"hook\",outcome=\"delivered\"} 2"
        ),
        "{metrics}"
    );
    assert!(!metrics.contains("secret"));
    monitor.stop().await;
}

#[tokio::test]
async fn a_busy_receiver_is_tried_again_when_it_wants_and_can_tell_the_repeat() {
    let bench = bench!();
    let receiver = Receiver::start().await;
    receiver.reply(503, &[("retry-after", "2")]);
    let (mut world, monitor) = watched(&bench, json!({ "channels": hook(&receiver) })).await;
    world.enter("api", InstanceState::Failed).await;
    let tries = receiver.has(2).await;
    assert_eq!(tries[0].header("webhook-id"), tries[1].header("webhook-id"));
    assert_eq!(tries[0].text, tries[1].text);
    let at = |n: usize| {
        tries[n]
            .header("webhook-timestamp")
            .parse::<i64>()
            .expect("a number")
    };
    assert!(
        at(1) - at(0) >= 1,
        "it waited, and the time is that of the try"
    );
    until("it is on the record", async || {
        let all = notifications(&monitor, "?channel=hook").await;
        all.len() == 1 && all[0]["delivery"] == "delivered" && all[0]["attempts"] == 2
    })
    .await;
    monitor.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_given_up_with_an_alert_that_a_test_clears() {
    let bench = bench!();
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    receiver.reply(302, &[("location", &elsewhere.url())]);
    let listener = Listener::of(&bench).await;
    let (mut world, monitor) = watched(&bench, json!({ "channels": hook(&receiver) })).await;
    world.enter("api", InstanceState::Failed).await;
    listener.alert("delivery_failed", AlertState::Firing).await;
    let failed = notifications(&monitor, "?delivery=failed").await;
    assert!(
        failed[0]["error"].as_str().expect("a text").contains("302"),
        "{failed:?}"
    );
    assert!(elsewhere.all().is_empty(), "redirects are not followed");
    let (status, _) = monitor
        .admin("POST", "/channels/nosuch/test", &Value::Null)
        .await;
    assert_eq!(status, 404);
    for (name, remedy) in [
        ("nosuch", "no channel `nosuch`: it has `hook`"),
        ("hok", "did you mean `hook`?"),
    ] {
        let path = format!("/notifications?channel={name}");
        let (status, problem) = monitor.admin("GET", &path, &Value::Null).await;
        assert_eq!(
            (status, &problem["code"]),
            (404, &json!("health.not_found"))
        );
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(remedy), "{detail}");
    }
    let (status, none) = monitor
        .admin(
            "GET",
            "/notifications?channel=hook&delivery=delivered",
            &Value::Null,
        )
        .await;
    assert_eq!((status, &none["notifications"]), (200, &json!([])));
    let (status, test) = monitor
        .admin("POST", "/channels/hook/test", &Value::Null)
        .await;
    assert_eq!((status, &test["delivery"]), (200, &json!("waiting")));
    listener
        .alert("delivery_failed", AlertState::Resolved)
        .await;
    assert!(receiver.told().contains(&"test firing test".to_owned()));
    monitor.stop().await;
}

#[tokio::test]
async fn a_private_address_is_not_spoken_to_unless_that_is_meant() {
    let bench = bench!();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let url = format!("https://localhost:{port}/");
    let channels = json!({ "hook": { "webhook": { "url": url } } });
    let (mut world, monitor) = watched(&bench, json!({ "channels": channels })).await;
    world.enter("api", InstanceState::Failed).await;
    until("it is given up", async || {
        !notifications(&monitor, "?delivery=failed").await.is_empty()
    })
    .await;
    let failed = notifications(&monitor, "?delivery=failed").await;
    let error = failed[0]["error"].as_str().expect("a text");
    assert!(
        error.contains("is not spoken to") && error.contains("allow_private"),
        "{error}"
    );
    let connected =
        tokio::time::timeout(std::time::Duration::from_millis(1), listener.accept()).await;
    assert!(connected.is_err(), "nobody connected");
    monitor.stop().await;
}

#[tokio::test]
async fn silences_windows_and_acknowledgements_work_by_rest_and_by_message_and_survive() {
    let bench = bench!();
    let receiver = Receiver::start().await;
    let (mut world, monitor) = watched(&bench, json!({ "channels": hook(&receiver) })).await;
    let post = async |path: &str, body: Value| monitor.admin("POST", path, &body).await;
    let (status, problem) = post(
        "/silences",
        json!({ "matchers": ["service=~.*"], "duration": "1h" }),
    )
    .await;
    assert_eq!((status, &problem["code"]), (422, &json!("health.unusable")));
    for window in [
        json!({ "services": ["nosuch"], "duration": "1h" }),
        json!({ "starts": 1e300, "duration": "1h" }),
        json!({ "starts": -1e300, "duration": "1h" }),
    ] {
        let (status, problem) = post("/maintenance", window).await;
        assert_eq!((status, &problem["code"]), (422, &json!("health.unusable")));
    }
    let body = json!({ "matchers": ["service=api"], "duration": "1h", "comment": "moving" });
    let (status, silence) = post("/silences", body).await;
    assert_eq!((status, &silence["phase"]), (200, &json!("active")));
    let silence = silence["id"].as_str().expect("an id").to_owned();
    world.enter("api", InstanceState::Failed).await;
    let id = first_alert(&monitor).await;
    let (_, alert) = monitor
        .admin("GET", &format!("/alerts/{id}"), &Value::Null)
        .await;
    assert_eq!(
        (&alert["muted"][0]["by"], &alert["muted"][0]["id"]),
        (&json!("silence"), &json!(silence))
    );
    assert_eq!(alert["muted"][0]["why"], "silenced by key/admin: moving");
    monitor.stop().await;

    // It comes back with the silence. By message somebody opens a window, takes note, and ends the silence.
    let monitor = bench
        .start::<HealthModule>(config(json!({ "channels": hook(&receiver) })))
        .await;
    monitor.is_well().await;
    let person = bench.client("key/bob").await;
    let ask = async |verb: &str, request: AlertRequest| {
        person
            .call(ALERT_REQUESTS, &[verb], &request, PATIENCE)
            .await
    };
    let window = AlertRequest {
        duration: Some(alicia_contract::Period::from_secs(600)),
        ..AlertRequest::default()
    };
    let window = ask("maintenance", window)
        .await
        .expect("taken")
        .maintenance
        .expect("a window");
    assert_eq!(window.by, "key/bob");
    let named = |id: &str| AlertRequest {
        id: Some(id.to_owned()),
        ..AlertRequest::default()
    };
    let ended = ask("unsilence", named(&silence)).await.expect("ended");
    assert_eq!(ended.silence.expect("a silence").id, silence);
    assert!(
        ask("unsilence", named(&silence)).await.is_err(),
        "it is over"
    );
    assert!(ask("nosuch", named(&silence)).await.is_err());
    let noted = AlertRequest {
        note: Some("on it".to_owned()),
        ..named(&id)
    };
    let noted = ask("ack", noted)
        .await
        .expect("taken")
        .alert
        .expect("an alert");
    assert_eq!(noted.acknowledged.expect("noted").by, "key/bob");
    assert_eq!(
        serde_json::to_value(&noted.muted).expect("JSON")[0]["by"],
        "maintenance"
    );
    let (_, page) = monitor.admin("GET", "/maintenance", &Value::Null).await;
    assert_eq!(page["maintenance"][0]["phase"], "active");
    assert!(receiver.all().is_empty(), "nobody was notified so far");
    let path = format!("/maintenance/{}", window.id);
    assert_eq!(monitor.admin("DELETE", &path, &Value::Null).await.0, 200);
    assert_eq!(monitor.admin("DELETE", &path, &Value::Null).await.0, 404);
    receiver.has(1).await;
    let unnoted = ask("unack", named(&id))
        .await
        .expect("taken")
        .alert
        .expect("an alert");
    assert!(unnoted.acknowledged.is_none());
    monitor.stop().await;
}

#[tokio::test]
async fn nobody_took_note_so_the_pager_is_told() {
    let bench = bench!();
    let (receiver, pager) = (Receiver::start().await, Receiver::start().await);
    let mut channels = hook(&receiver);
    let url = json!({ "url": pager.url() });
    channels["pager"] = json!({ "webhook": url, "allow_private": true, "escalation_only": true });
    let steps = json!([{ "after": "2s", "channels": ["pager"], "severity": "critical" }]);
    let parts = json!({ "channels": channels, "escalations": [{ "steps": steps }] });
    let (mut world, monitor) = watched(&bench, parts).await;
    world.enter("api", InstanceState::Failed).await;
    let told = pager.has(1).await.remove(0).json();
    assert_eq!(
        (&told["reason"], &told["severity"]),
        (&json!("escalation"), &json!("critical"))
    );
    world.start("api").await;
    pager.has(2).await;
    assert_eq!(pager.told()[1], "resolved resolved service=api");
    monitor.stop().await;
}

#[tokio::test]
async fn an_unhealthy_service_is_restarted_by_request_until_the_breaker_opens() {
    use alicia_contract::orchestrator::{FleetAnswer, REQUESTS};
    let bench = bench!();
    let mut spec = alicia_contract::fleet::ServiceSpec::new(vec!["api".to_owned()]);
    let check = json!({ "exec": { "command": "false" }, "interval": "100ms", "fall": 2 });
    spec.checks.insert(
        world::name("bad"),
        serde_json::from_value(check).expect("a check"),
    );
    let mut world = World::of(&bench, [("api", spec)]).await;
    let listener = Listener::of(&bench).await;
    let restart =
        json!({ "enabled": true, "after": "1s", "limit": 2, "within": "10m", "pause": "1s" });
    let monitor = bench
        .start::<HealthModule>(config(json!({ "auto_restart": restart })))
        .await;
    let mut requests = world.bus.serve(REQUESTS).await.expect("serves");
    world.start("api").await;
    for nth in 1..=3 {
        let request = tokio::time::timeout(PATIENCE, requests.next())
            .await
            .expect("in time");
        let request = request.expect("a request");
        let reason = request.query.reason.clone().unwrap_or_default();
        assert_eq!(request.values, ["restart"]);
        if nth <= 2 {
            assert!(
                reason.contains(&format!("restart {nth} of at most 2")),
                "{reason}"
            );
        } else {
            assert!(reason.contains("one try after a pause"), "{reason}");
            assert!(
                listener
                    .alerts()
                    .iter()
                    .any(|alert| alert.rule == "restart_breaker")
            );
        }
        let services = request.query.services.clone();
        let answer = FleetAnswer {
            accepted: true,
            services,
            detail: String::new(),
        };
        request.respond(Ok(answer)).await.expect("answered");
        world.start("api").await;
    }
    monitor.stop().await;
}

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_real_alertmanager_takes_alerts_and_sees_them_end() {
    if !alicia_testkit::house::is_installed("prometheus-alertmanager", "prometheus-alertmanager") {
        return;
    }
    let bench = bench!();
    let port = alicia_testkit::house::free_port();
    let file = bench.path().join("am.yml");
    std::fs::write(
        &file,
        "route: { receiver: none }\nreceivers: [{ name: none }]\n",
    )
    .expect("written");
    let child = Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.path={}",
            bench.path().join("am").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let _alertmanager = Program(child);
    let url = format!("http://127.0.0.1:{port}");
    let peer = json!({ "alertmanager": { "url": url, "refresh": "1s" }, "allow_private": true });
    let (mut world, monitor) = watched(&bench, json!({ "channels": { "am": peer } })).await;
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let alerts = async || -> Vec<Value> {
        let answer = http.get(format!("{url}/api/v2/alerts")).send().await;
        match answer {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    };
    world.enter("api", InstanceState::Failed).await;
    until("it has the alert", async || !alerts().await.is_empty()).await;
    let alert = alerts().await.remove(0);
    assert_eq!(
        (&alert["labels"]["alertname"], &alert["labels"]["service"]),
        (&json!("crash_loop"), &json!("api"))
    );
    // It would forget it after 4 s: that it is there later shows that it is told again.
    let first_end = alert["endsAt"].as_str().expect("a time").to_owned();
    until("it is told again", async || {
        let alerts = alerts().await;
        !alerts.is_empty() && alerts[0]["endsAt"].as_str() > Some(first_end.as_str())
    })
    .await;
    let kept = notifications(&monitor, "?channel=am").await;
    assert!(
        kept.iter()
            .filter(|of| of["delivery"] == "delivered")
            .all(|of| of["reason"] != "repeat"),
        "{kept:?}"
    );
    world.start("api").await;
    until("it knows that it is over", async || {
        alerts().await.is_empty()
    })
    .await;
    monitor.stop().await;
}

#[tokio::test]
async fn mail_is_delivered_over_starttls_with_a_password_and_refused_without() {
    let Some(sink) = mail::Sink::start().await else {
        return;
    };
    let bench = bench!();
    std::fs::write(bench.path().join("mail.password"), "hunter2hunter2\n").expect("written");
    std::fs::copy(sink.certificate(), bench.path().join("ca.pem")).expect("copied");
    let email = |name: &str, extra: Value| {
        let mut email = json!({
            "server": format!("localhost:{}", sink.port), "from": "alicia@example.org",
            "to": ["ops@example.org", "bob@example.org"],
        });
        for (field, value) in extra.as_object().expect("an object") {
            email[field] = value.clone();
        }
        (
            name.to_owned(),
            json!({ "email": email, "allow_private": true, "ca_file": "ca.pem" }),
        )
    };
    let login = json!({ "username": "alicia", "password_file": "mail.password" });
    let channels: serde_json::Map<String, Value> =
        [email("mail", login), email("anonymous", json!({}))]
            .into_iter()
            .collect();
    let (mut world, monitor) = watched(&bench, json!({ "channels": channels })).await;
    world.enter("api", InstanceState::Failed).await;
    let first = sink.mail().await;
    assert_eq!(first["from"], "alicia@example.org");
    assert_eq!(first["to"], json!(["ops@example.org", "bob@example.org"]));
    assert_eq!(
        (&first["tls"], &first["user"]),
        (&json!(true), &json!("alicia"))
    );
    let subject = first["subject"].as_str().expect("a text");
    assert!(subject.starts_with("[CRITICAL] api-1 failed"), "{subject}");
    let text = first["text"].as_str().expect("a text");
    assert!(
        text.contains("killed by SIGKILL") && text.contains("| the last line"),
        "{text}"
    );
    until("who gives no password is refused", async || {
        let failed = notifications(&monitor, "?channel=anonymous&delivery=failed").await;
        !failed.is_empty()
            && failed[0]["error"]
                .as_str()
                .is_some_and(|error| error.contains("530"))
    })
    .await;
    monitor.stop().await;
}
