//! The host, its modules, the keeper and the bus, when they run.

use std::time::Duration;

use alicia_contract::platform::{HostFile, HostHealth, PartHealth};
use alicia_keeper::protocol::{Containment, Stats};
use alicia_keeper::{Client, Error as KeeperError, Session};
use alicia_module::Paths;

use super::{CONTAINMENT, Finding, in_words, machine};
use crate::api::ApiClient;
use crate::cli::Global;
use crate::command::bus;
use crate::show;

/// Everything here is on this machine.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn look(
    global: &Global,
    paths: &Paths,
    running: Option<&HostFile>,
) -> Vec<Finding> {
    let mut findings = match tokio::time::timeout(DEADLINE, keeper(paths, running.is_some())).await
    {
        Ok(found) => found,
        Err(_) => vec![late("keeper")],
    };
    if running.is_none() && global.api.is_none() {
        findings.push(Finding::ok("host", "does not run; `alicia up` starts it"));
        return findings;
    }
    match tokio::time::timeout(DEADLINE, modules(global)).await {
        Ok(found) => findings.extend(found),
        Err(_) => findings.push(late("host")),
    }
    findings.push(
        tokio::time::timeout(DEADLINE, reach_bus(global))
            .await
            .unwrap_or_else(|_| late("bus")),
    );
    findings
}

fn late(check: &str) -> Finding {
    let found = format!("does not answer within {} s", DEADLINE.as_secs());
    Finding::fail(
        check,
        found,
        "look into host.log and keeper/keeper.log in the data directory",
    )
}

async fn modules(global: &Global) -> Vec<Finding> {
    let health: Result<HostHealth, _> = match ApiClient::find(global) {
        Ok(api) => api.get_any("/health").await,
        Err(failure) => Err(failure),
    };
    let health = match health {
        Ok(health) => health,
        Err(failure) => {
            let mend = "look into host.log in the data directory; `alicia down && alicia up` starts it again";
            return vec![Finding::fail("host", in_words(&failure), mend)];
        }
    };
    let found = format!(
        "version {}, up {}",
        health.version,
        show::span(health.uptime_s)
    );
    let host = match health.version == env!("CARGO_PKG_VERSION") {
        true => Finding::ok("host", found),
        false => Finding::warn(
            "host",
            found,
            "this program has another version: `alicia down --keep-services && alicia up -d`",
        ),
    };
    let modules = health.modules.into_iter().map(|module| {
        let check = format!("module {}", module.module);
        let mend = "`alicia status` shows more, and host.log the cause";
        match module.health {
            PartHealth::Ok if module.restarts > 0 => Finding::warn(
                &check,
                format!("works, after {} restarts", module.restarts),
                mend,
            ),
            PartHealth::Ok => Finding::ok(&check, "works"),
            PartHealth::Degraded(why) => Finding::warn(&check, format!("degraded: {why}"), mend),
            PartHealth::Failed(why) => Finding::fail(&check, format!("failed: {why}"), mend),
        }
    });
    std::iter::once(host).chain(modules).collect()
}

async fn keeper(paths: &Paths, is_expected: bool) -> Vec<Finding> {
    let mend = "look into keeper/keeper.log in the data directory";
    let session = match Client::connect(&paths.keeper()).await {
        Ok(session) => session,
        Err(KeeperError::NotRunning { .. }) if !is_expected => {
            return vec![Finding::ok("keeper", "does not run; the host starts it")];
        }
        Err(error) => return vec![Finding::fail("keeper", format!("failed to {error}"), mend)],
    };
    let Session {
        client, connection, ..
    } = session;
    let stats = tokio::select! {
        stats = client.stats() => stats,
        ended = connection.run() => Err(ended.err().unwrap_or(KeeperError::Closed)),
    };
    let about = format!("{}, pid {}", client.keeper().program, client.keeper().pid);
    match stats {
        Ok(stats) => {
            let running = format!("{about}, {} running", stats.running);
            vec![
                Finding::ok("keeper", running),
                containment(&stats),
                machine::limits(&stats.controllers, &stats.controllers_1),
            ]
        }
        Err(error) => vec![Finding::warn(
            "keeper",
            format!("{about}; failed to {error}"),
            mend,
        )],
    }
}

fn containment(stats: &Stats) -> Finding {
    let how = match stats.containment {
        Containment::Cgroup => "cgroup version 2".to_owned(),
        Containment::Scan => "scan of /proc".to_owned(),
    };
    let why = stats
        .containment_reason
        .as_ref()
        .map_or_else(String::new, |why| format!(", since {why}"));
    Finding::ok(CONTAINMENT, how + &why)
}

async fn reach_bus(global: &Global) -> Finding {
    match bus::connect(global).await {
        Ok(connected) => Finding::ok("bus", format!("reached as {}", connected.source())),
        Err(failure) => Finding::fail(
            "bus",
            in_words(&failure),
            "`alicia status` shows the broker; --key names another key",
        ),
    }
}
