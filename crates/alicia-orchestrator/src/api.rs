//! REST under `/api/orchestrator`.

pub(crate) mod commands;
mod deployments;
pub(crate) mod logs;
mod views;

use std::sync::Arc;

use alicia_contract::ServiceName;
use alicia_contract::orchestrator::{Explanation, FleetStatus, ProcessRow};
use alicia_module::{Api, ApiError, Operation};

use crate::graph::Dependencies;
use crate::module::Orchestrator;

const NAME: &str = "orchestrator";

const UNKNOWN: &str = "There is no such service or group (`orchestrator.unknown_service`).";
const UNDER_WAY: &str = "It is written down and under way; with `wait`, what became of it.";

/// Every operation.
pub(crate) fn routes() -> Api<Arc<Orchestrator>> {
    look(deployments::routes(Api::new()))
        .with(
            command(
                "/start",
                "Starts the fleet, or some services and what they need.",
            ),
            commands::start,
        )
        .with(
            command(
                "/stop",
                "Stops the fleet, or some services, dependents first.",
            ),
            commands::stop,
        )
        .with(
            command("/restart", "Stops and starts the fleet, or some services."),
            commands::restart,
        )
        .with(
            one(
                "/services/{name}/start",
                "Starts a service and what it needs.",
            ),
            commands::start_one,
        )
        .with(
            one("/services/{name}/stop", "Stops a service."),
            commands::stop_one,
        )
        .with(
            one("/services/{name}/restart", "Stops and starts a service."),
            commands::restart_one,
        )
        .with(
            one(
                "/services/{name}/pause",
                "Holds the processes of a service still.",
            ),
            commands::pause_one,
        )
        .with(
            one(
                "/services/{name}/resume",
                "Lets what is paused go on, and starts what is parked now.",
            ),
            commands::resume_one,
        )
        .with(
            command(
                "/pause",
                "Holds the processes of the fleet, or of some services, still.",
            ),
            commands::pause,
        )
        .with(
            command(
                "/resume",
                "Lets what is paused go on, and starts what is parked now.",
            ),
            commands::resume,
        )
        .with(
            Operation::post(
                "/services/{name}/signal",
                "Sends a signal to a service's processes.",
            )
            .body::<commands::SignalBody>()
            .answers::<commands::Signalled>(200, "Who got it.")
            .refuses(404, UNKNOWN)
            .refuses(409, "It does not run (`orchestrator.not_running`)."),
            commands::signal,
        )
        .with(
            Operation::post(
                "/scale/{service}",
                "Changes the number of instances of a service.",
            )
            .params::<commands::OneParams>()
            .body::<commands::ScaleBody>()
            .answers::<commands::CommandAnswer>(200, UNDER_WAY)
            .refuses(404, UNKNOWN)
            .refuses(
                409,
                "A fixed port can only be used once (`orchestrator.fixed_port`).",
            )
            .refuses(
                422,
                "Not a number of instances (`orchestrator.invalid_scale`).",
            ),
            commands::scale,
        )
}

fn look(api: Api<Arc<Orchestrator>>) -> Api<Arc<Orchestrator>> {
    api.with(
        Operation::get("/status", "The state of every instance.")
            .answers::<FleetStatus>(200, "The fleet, in the order of its start."),
        views::status,
    )
    .with(
        Operation::get(
            "/instances",
            "The instances as rows, as `alicia ps` shows them.",
        )
        .answers::<Vec<ProcessRow>>(200, "The rows."),
        views::instances,
    )
    .with(
        Operation::get(
            "/services/{name}",
            "One service, with its last transitions.",
        )
        .answers::<views::ServiceView>(200, "The service.")
        .refuses(404, UNKNOWN),
        views::service,
    )
    .with(
        Operation::get(
            "/services/{name}/explain",
            "Why the instances of a service are where they are: the chain of causes.",
        )
        .params::<views::ExplainParams>()
        .answers::<Explanation>(200, "The story, oldest link first.")
        .refuses(404, UNKNOWN)
        .refuses(
            404,
            "It has no such instance (`orchestrator.unknown_slot`).",
        ),
        views::explain,
    )
    .with(
        Operation::get(
            "/dependencies",
            "The graph of dependencies, its order and critical path.",
        )
        .params::<views::DependenciesParams>()
        .answers::<Dependencies>(
            200,
            "The graph; as text with `format=dot` or `format=mermaid`.",
        )
        .answers_text(200, "text/vnd.graphviz", "With `format=dot`.")
        .answers_text(200, "text/plain", "With `format=mermaid`."),
        views::dependencies,
    )
    .with(
        Operation::get(
            "/services/{name}/logs",
            "The output of a service, and what follows; of the host itself as `system`.",
        )
        .params::<logs::LogsParams>()
        .answers_text(
            200,
            "text/plain",
            "Lines; each a JSON object with `Accept: application/x-ndjson`.",
        )
        .answers_text(200, "application/x-ndjson", "When asked for.")
        .refuses(404, UNKNOWN)
        .refuses(
            503,
            "Too many follow logs already (`orchestrator.unavailable`).",
        ),
        logs::logs,
    )
    .with(
        Operation::get(
            "/logs",
            "The output of every service in the order of time, and what follows.",
        )
        .params::<logs::LogsParams>()
        .answers_text(
            200,
            "text/plain",
            "Lines; each a JSON object with `Accept: application/x-ndjson`.",
        )
        .answers_text(200, "application/x-ndjson", "When asked for.")
        .refuses(
            503,
            "Too many follow logs already (`orchestrator.unavailable`).",
        ),
        logs::all_logs,
    )
    .with(
        Operation::get("/audit", "Who asked for what, newest first.")
            .params::<views::AuditParams>()
            .answers::<Vec<views::AuditRow>>(200, "The rows."),
        views::audit,
    )
}

fn command(path: &'static str, summary: &'static str) -> Operation {
    Operation::post(path, summary)
        .params::<commands::CommandParams>()
        .answers::<commands::CommandAnswer>(200, UNDER_WAY)
        .refuses(404, UNKNOWN)
}

fn one(path: &'static str, summary: &'static str) -> Operation {
    Operation::post(path, summary)
        .params::<commands::OneParams>()
        .answers::<commands::CommandAnswer>(200, UNDER_WAY)
        .refuses(404, UNKNOWN)
}

/// A name that does not exist, with the nearest that does.
fn unknown_service(module: &Orchestrator, name: &ServiceName) -> ApiError {
    crate::explain::unknown(&module.cx.fleet.borrow(), name)
}

/// The slots of a service; `None` when there is no such service.
async fn current_slots(
    module: &Orchestrator,
    name: &ServiceName,
) -> Result<Option<Vec<u32>>, ApiError> {
    let status = views::current(module).await?;
    let found = status
        .services
        .iter()
        .find(|service| service.service == *name);
    Ok(found.map(|service| {
        service
            .instances
            .iter()
            .map(|instance| instance.slot)
            .collect()
    }))
}
