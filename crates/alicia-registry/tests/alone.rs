//! The registry starts with no neighbour at all: no bus, no orchestrator. It says what is missing, and REST works.

use alicia_contract::id::InstanceId;
use alicia_module::{Health, Module};
use alicia_registry::{Config, RegistryModule};
use alicia_testkit::Bench;
use serde_json::json;

#[tokio::test]
async fn alone_it_says_what_is_missing_and_serves() {
    let bench = Bench::alone();
    let registry = bench.start::<RegistryModule>(Config::default()).await;
    let health = registry.module.health();
    assert!(
        matches!(&health, Health::Degraded(why) if why.contains("bus")),
        "{health:?}"
    );
    let body = json!({ "service": "lamp", "instance": InstanceId::from_parts(1, 1) });
    let (status, entry) = registry.admin("POST", "/agents", &body).await;
    assert_eq!((status, &entry["presence"]), (200, &json!("present")));
    let (status, page) = registry.admin("GET", "/agents", &json!(null)).await;
    assert_eq!(
        (status, page["agents"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    assert!(
        registry
            .metrics()
            .contains("alicia_registry_instances{presence=\"present\"} 1")
    );
    registry.stop().await;
}
