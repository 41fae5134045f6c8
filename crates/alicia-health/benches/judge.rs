//! What the judging of ten thousand checks a second costs: 1,000 services with ten checks each, tried once a second, and four
//! ticks. The core alone: no network, no database.
//!
//! ```text
//! cargo bench -p alicia-health --bench judge                 optimised
//! cargo bench -p alicia-health --bench judge --profile dev   quicker to build, several times slower to run
//! ```

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that measures and prints"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use alicia_contract::fleet::{Fleet, ServiceSpec};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::orchestrator::{FleetStatus, InstanceState, InstanceStatus, ServiceStatus};
use alicia_health::core::evidence::Try;
use alicia_health::core::{Event, Monitor, Now, Settings, Tried};
use serde_json::json;

const SERVICES: u64 = 1_000;
const CHECKS: u64 = 10;
const SECONDS: u64 = 10;

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("an id")
}

fn main() {
    let mut fleet = Fleet::default();
    let mut status = FleetStatus::default();
    for n in 0..SERVICES {
        let mut spec = ServiceSpec::new(vec!["x".to_owned()]);
        for check in 0..CHECKS {
            let probe = serde_json::from_value(json!({ "tcp": { "port": 1 } })).expect("a probe");
            spec.checks.insert(name(&format!("c{check}")), probe);
        }
        let service = name(&format!("s{n}"));
        let instance = InstanceStatus {
            slot: 1,
            instance: Some(InstanceId::from_parts(n, 0)),
            epoch: Epoch(1),
            state: InstanceState::Running,
            since: 1.0,
            ..InstanceStatus::default()
        };
        let told = json!({ "service": service, "wanted": 1, "depends_on": {}, "restart": "always", "groups": [], "instances": [instance] });
        let told: ServiceStatus = serde_json::from_value(told).expect("a status");
        status.services.push(told);
        fleet.services.insert(service, spec.into());
    }
    let mut monitor = Monitor::new(Settings::default(), 1);
    let at = |ms: u64| Now {
        unix: 1_000.0 + Duration::from_millis(ms).as_secs_f64(),
        mono: Duration::from_millis(ms),
    };
    status.at = 1_000.0;
    monitor.apply(Event::Fleet(Arc::new(fleet)), at(0));
    monitor.apply(Event::Status(Box::new(status)), at(0));
    monitor.apply(Event::Tick, at(0));
    let targets = monitor.targets();
    let count = targets.len() as u64;
    let (mut ticks, mut tries) = (Duration::ZERO, Duration::ZERO);
    let mut longest = Duration::ZERO;
    for second in 0..SECONDS {
        for (n, target) in targets.iter().enumerate() {
            let ms = second * 1_000 + n as u64 * 1_000 / count;
            if n as u64 * 4 % count < 4 {
                let began = Instant::now();
                monitor.apply(Event::Tick, at(ms));
                ticks += began.elapsed();
                longest = longest.max(began.elapsed());
            }
            let tried = Tried {
                service: target.service.clone(),
                slot: target.slot,
                instance: target.instance.clone(),
                check: target.check.clone(),
                result: Try {
                    good: true,
                    detail: "connected to 127.0.0.1:1".to_owned(),
                    latency_ms: 0.1,
                    begun: at(ms).mono,
                },
            };
            let began = Instant::now();
            monitor.apply(Event::Tried(Box::new(tried)), at(ms));
            tries += began.elapsed();
        }
    }
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let per_second =
        |of: Duration| of.as_secs_f64() * 1e3 / Duration::from_secs(SECONDS).as_secs_f64();
    println!("{SERVICES} services, {count} checks a second, {build} build");
    println!("tries: {:.1} ms of each second", per_second(tries));
    println!(
        "ticks: {:.1} ms of each second, the longest {:.1} ms",
        per_second(ticks),
        longest.as_secs_f64() * 1e3
    );
}
