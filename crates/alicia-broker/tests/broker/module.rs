//! The module with the house's real identities, bus and database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alicia_broker::{BrokerModule, Config};
use alicia_bus::{Bus, Options as BusOptions, PasswordSource};
use alicia_contract::fleet::{Fleet, ServiceSpec};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::platform::{NewKey, Scope};
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Identity};
use alicia_module::spawn::Spawner;
use alicia_module::{Addresses, Clock, Context, Ending, Exposition, Health, Module, Paths};
use alicia_store::audit::{self, Cursor, Outcome};
use alicia_store::{Options, Store};
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use rmqtt::codec::types::QoS;
use rmqtt::codec::v5::ConnectAckReason;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::house::{PATIENCE, until};
use crate::wire::{Hello, Wire, hello, message};

struct Home {
    module: Arc<BrokerModule>,
    cx: Context,
    fleet: watch::Sender<Arc<Fleet>>,
    _faults: mpsc::Receiver<alicia_module::spawn::TaskFault>,
}

fn fleet(names: &[&str]) -> Fleet {
    let service = |name: &&str| {
        (
            ServiceName::new(*name).unwrap(),
            ServiceSpec::new(vec!["true".into()]).into(),
        )
    };
    Fleet {
        name: "test".into(),
        services: names.iter().map(service).collect(),
        ..Fleet::default()
    }
}

fn instance(service: &str) -> Identity {
    Identity::Service {
        service: ServiceName::new(service).unwrap(),
        instance: InstanceId::from_parts(1, 1),
        epoch: Epoch(1),
    }
}

impl Home {
    async fn start(directory: &Path) -> Self {
        let clock = Clock::system();
        let paths = Paths::new(directory, directory);
        let identity = Authority::open(&paths.identity(), Prefix::default()).unwrap();
        let services = Arc::new(fleet(&["api", "db"]));
        identity.set_fleet(&services);
        let path = directory.join("broker.db");
        let store = Store::open(Options::new(
            path,
            BrokerModule::MIGRATIONS,
            clock.for_store(),
        ))
        .unwrap();
        let addresses = Addresses::default();
        let (faults, _faults) = mpsc::channel(8);
        let tasks = Spawner::new("broker", faults);
        let (fleet, services) = watch::channel(services);
        let mut options = BusOptions::new(addresses.bus(), "system/broker", Prefix::default());
        let token = identity.issue_token(&Identity::Module("broker".into()));
        options.password = PasswordSource::Fixed(token);
        let (bus, connection) = Bus::start(options);
        tasks.spawn("bus", connection);
        let cx = Context {
            bus,
            store,
            clock,
            identity,
            fleet: services,
            paths,
            program: "alicia".into(),
            addresses,
            external_bus: None,
            desk: Default::default(),
            tasks,
            seed: 1,
        };
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            ..Config::default()
        };
        let module = Arc::new(BrokerModule::start(cx.clone(), config).await.unwrap());
        Self {
            module,
            cx,
            fleet,
            _faults,
        }
    }

    async fn stop(self) {
        self.module.stop(Ending::Finish).await;
        self.cx.bus.close().await;
        self.cx.store.close().await;
    }

    fn hello(&self, client_id: &str, name: &str, password: &str) -> Hello {
        let password = password.to_owned();
        hello(client_id)
            .named(name)
            .with(|connect| connect.password = Some(password.into()))
    }

    async fn connect(&self, hello: Hello) -> (Wire, ConnectAckReason) {
        let address = self.cx.addresses.bus().borrow().clone().unwrap();
        let address = format!("{}:{}", address.host, address.port)
            .parse()
            .unwrap();
        let (wire, ack) = hello.try_connect(address).await;
        (wire, ack.reason_code)
    }

    async fn service(&self, name: &str) -> Wire {
        let token = self.cx.identity.issue_token(&instance(name));
        let (wire, reason) = self.connect(self.hello(name, name, &token)).await;
        assert_eq!(reason, ConnectAckReason::Success);
        wire
    }

    async fn call(&self, method: Method, path: &str, scope: Scope) -> (StatusCode, Value) {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(Identity::Key {
            name: "test".into(),
            scope,
        });
        let router = BrokerModule::routes().into_router(Arc::clone(&self.module));
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn modules_and_services_get_in_with_their_tokens_and_do_what_they_may() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    home.cx.bus.connected(PATIENCE).await.unwrap();
    let mut api = home.service("api").await;
    let own = message(
        "alicia/system/health/api",
        r#"{"status":"healthy"}"#,
        QoS::AtLeastOnce,
    );
    assert_eq!(api.publish(own).await, 0);
    let other = message("alicia/system/health/db", "{}", QoS::AtLeastOnce);
    assert_eq!(api.publish(other).await, 0x87);
    let forged = r#"{"source":"db","message_type":"event","payload":{}}"#;
    let forged = message("alicia/system/health/api", forged, QoS::AtLeastOnce);
    assert_eq!(api.publish(forged).await, 0x87);

    let (_, reason) = home.connect(home.hello("x", "api", "guess")).await;
    assert_eq!(reason, ConnectAckReason::BadUserNameOrPassword);
    let stolen = home.cx.identity.issue_token(&instance("api"));
    let (_, reason) = home.connect(home.hello("x", "db", &stolen)).await;
    assert_eq!(reason, ConnectAckReason::BadUserNameOrPassword);
    assert_eq!(home.module.health(), Health::Ok);
    home.stop().await;
}

#[tokio::test]
async fn refusals_are_audited() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let mut api = home.service("api").await;
    for _ in 0..10 {
        api.publish(message("alicia/system/health/db", "{}", QoS::AtLeastOnce))
            .await;
    }
    let store = home.cx.store.clone();
    let entries = async || {
        let read = store.read(|connection| audit::list(connection, Cursor::After(0), 100));
        read.await.unwrap()
    };
    until("the refusal is audited", async || {
        !entries().await.is_empty()
    })
    .await;
    let entries = entries().await;
    assert_eq!(entries.len(), 1, "ten of a kind are one entry: {entries:?}");
    let entry = &entries[0];
    assert_eq!(
        (entry.actor.as_str(), entry.action.as_str()),
        ("api", "broker.publish")
    );
    assert_eq!(entry.target, "topic:alicia/system/health/db");
    assert_eq!(
        (entry.outcome, &entry.detail["reason"]),
        (Outcome::Denied, &"not_authorized".into())
    );
    home.stop().await;
}

#[tokio::test]
async fn clients_are_listed_and_ended_over_rest() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let mut api = home.service("api").await;
    let (status, clients) = home.call(Method::GET, "/clients", Scope::Read).await;
    assert_eq!(status, StatusCode::OK);
    let listed = clients
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["client_id"] == "api")
        .unwrap();
    assert_eq!(
        (&listed["identity"], &listed["connected"]),
        (&"api".into(), &true.into())
    );
    let (status, _) = home.call(Method::DELETE, "/clients/api", Scope::Read).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, ended) = home
        .call(Method::DELETE, "/clients/api", Scope::Operate)
        .await;
    assert_eq!((status, &ended["connections"]), (StatusCode::OK, &1.into()));
    assert_eq!(api.ending().await, Some(0x98));
    let (status, problem) = home
        .call(Method::DELETE, "/clients/nobody", Scope::Operate)
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::NOT_FOUND, &"broker.not_found".into())
    );
    let (status, stats) = home.call(Method::GET, "/stats", Scope::Read).await;
    assert_eq!(status, StatusCode::OK);
    assert!(stats["sessions"].as_u64().is_some(), "{stats}");

    let mut out = Exposition::default();
    out.begin("broker");
    home.module.metrics(&mut out);
    let text = out.text();
    assert!(text.contains("alicia_broker_connected_total"), "{text}");
    assert!(
        text.contains("alicia_broker_refused_total{reason=\"not_authorized\"} 0"),
        "{text}"
    );
    home.stop().await;
}

#[tokio::test]
async fn the_sender_of_each_message_is_stamped_and_cannot_be_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let admin = home.cx.identity.create_key(
        &NewKey {
            name: ServiceName::new("root").unwrap(),
            scope: Some(Scope::Admin),
            scopes: Vec::new(),
            expires_days: None,
        },
        home.cx.clock.unix(),
    );
    let key = admin.unwrap().0;
    let (mut root, reason) = home.connect(home.hello("root", "root", key.reveal())).await;
    assert_eq!(reason, ConnectAckReason::Success);
    root.subscribe("alicia/#", QoS::AtLeastOnce).await;
    let mut api = home.service("api").await;
    let mut forged = message(
        "alicia/system/health/api",
        "{\"status\":\"healthy\"}",
        QoS::AtLeastOnce,
    );
    let properties = forged.properties.get_or_insert_default();
    for claimed in ["system/orchestrator", "key/root"] {
        properties
            .user_properties
            .push(("alicia-source".into(), claimed.into()));
    }
    properties
        .user_properties
        .push(("other".into(), "kept".into()));
    assert_eq!(api.publish(forged).await, 0);
    let heard = root.receive().await;
    let found: Vec<(String, String)> = heard
        .properties
        .expect("has properties")
        .user_properties
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found, [pair("other", "kept"), pair("alicia-source", "api")]);
    home.stop().await;
}

#[tokio::test]
async fn a_new_run_of_a_slot_cuts_off_the_one_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let name = ServiceName::new("api").unwrap();
    let begin = |n: u64| {
        let run = alicia_identity::Beginning {
            service: &name,
            slot: 0,
            instance: &InstanceId::from_parts(n, 0),
            epoch: Epoch(n),
            socket: directory.path(),
            logs_in: true,
        };
        home.cx
            .identity
            .begin_run(run, home.cx.clock.unix())
            .unwrap();
        home.cx.identity.issue_token(&Identity::Service {
            service: name.clone(),
            instance: InstanceId::from_parts(n, 0),
            epoch: Epoch(n),
        })
    };
    let old = begin(1);
    let (mut first, reason) = home.connect(home.hello("one", "api", &old)).await;
    assert_eq!(reason, ConnectAckReason::Success);
    let new = begin(2);
    assert_eq!(first.ending().await, Some(0x98));
    let (_, reason) = home.connect(home.hello("one", "api", &old)).await;
    assert_eq!(reason, ConnectAckReason::NotAuthorized);
    let (mut second, reason) = home.connect(home.hello("two", "api", &new)).await;
    assert_eq!(reason, ConnectAckReason::Success);
    let beat = message("alicia/system/health/api", "{}", QoS::AtLeastOnce);
    assert!(second.publish(beat).await < 0x80);
    home.stop().await;
}

#[tokio::test]
async fn who_loses_the_identity_loses_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let new = NewKey {
        name: ServiceName::new("ann").unwrap(),
        scope: Some(Scope::Read),
        scopes: Vec::new(),
        expires_days: None,
    };
    let (key, _) = home
        .cx
        .identity
        .create_key(&new, home.cx.clock.unix())
        .unwrap();
    let (mut ann, reason) = home.connect(home.hello("ann", "ann", key.reveal())).await;
    assert_eq!(reason, ConnectAckReason::Success);
    let mut db = home.service("db").await;
    home.cx
        .identity
        .revoke_key("ann", home.cx.clock.unix())
        .unwrap();
    let smaller = Arc::new(fleet(&["api"]));
    home.cx.identity.set_fleet(&smaller);
    home.fleet.send_replace(smaller);
    assert_eq!(ann.ending().await, Some(0x98));
    assert_eq!(db.ending().await, Some(0x98));
    home.stop().await;
}

#[tokio::test]
async fn a_key_that_is_made_anew_is_another_key() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let identity = &home.cx.identity;
    let now = home.cx.clock.unix();
    let key = |scope: Scope| {
        let new = NewKey {
            name: ServiceName::new("ci").unwrap(),
            scope: Some(scope),
            scopes: Vec::new(),
            expires_days: None,
        };
        identity.create_key(&new, now).unwrap().0
    };
    let leaked = key(Scope::Operate);
    let (mut thief, reason) = home.connect(home.hello("ci", "ci", leaked.reveal())).await;
    assert_eq!(reason, ConnectAckReason::Success);
    // As a script does it, within a moment.
    identity.revoke_key("ci", now).unwrap();
    let fresh = key(Scope::Read);
    assert_eq!(thief.ending().await, Some(0x98));
    let (_, reason) = home.connect(home.hello("ci", "ci", leaked.reveal())).await;
    assert_ne!(reason, ConnectAckReason::Success);
    let (_, reason) = home.connect(home.hello("ci", "ci", fresh.reveal())).await;
    assert_eq!(reason, ConnectAckReason::Success);
    home.stop().await;
}

#[tokio::test]
async fn a_restarted_module_has_its_retained_messages() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::start(directory.path()).await;
    let bus = &home.cx.bus;
    bus.connected(PATIENCE).await.unwrap();
    bus.set_at(
        "alicia/system/orchestrator/status",
        &serde_json::json!({"a": 1}),
    )
    .await
    .unwrap();
    home.stop().await;
    let home = Home::start(directory.path()).await;
    let (_, stats) = home.call(Method::GET, "/stats", Scope::Read).await;
    assert_eq!(stats["retained_messages"], 1);
    tokio::time::timeout(Duration::from_secs(10), home.stop())
        .await
        .expect("stops in time");
}
