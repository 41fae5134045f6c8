//! Asks the orchestrator for the restarts that the core decided on.

use std::sync::Arc;
use std::time::Duration;

use alicia_bus::Bus;
use alicia_contract::id::ServiceName;
use alicia_contract::orchestrator::{FleetAnswer, FleetRequest, REQUESTS, Verb};

use crate::actor::Signals;
use crate::office::Office;

/// How long the orchestrator may take to accept a request.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Who asks, in the audit log.
const OURSELVES: &str = "system/health";

/// Asks for a restart.
pub(crate) async fn call(
    bus: &Bus,
    service: ServiceName,
    reason: String,
) -> Result<FleetAnswer, alicia_bus::CallError> {
    let request = FleetRequest {
        services: vec![service],
        reason: Some(reason),
        ..FleetRequest::default()
    };
    bus.call(REQUESTS, &[Verb::Restart.as_str()], &request, DEADLINE)
        .await
}

/// Asks for those that are due. A call that fails is not repeated: the core asks again when the time has come.
pub(crate) async fn ask(bus: Bus, office: Office, signals: Arc<Signals>) {
    loop {
        signals.restart.notified().await;
        for (service, why) in signals.take_restarts() {
            let target = format!("service:{service}");
            // What cannot be audited is not done.
            if let Err(error) = office.note(OURSELVES, "auto_restart", target).await {
                tracing::error!(%error, %service, "a restart was not asked for");
                continue;
            }
            match call(&bus, service.clone(), why.clone()).await {
                Ok(_) => tracing::info!(%service, why, "a restart was asked for"),
                Err(error) => tracing::warn!(%error, %service, "a restart was refused"),
            }
        }
    }
}
