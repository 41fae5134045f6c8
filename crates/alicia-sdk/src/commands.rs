//! The commands of a service: from a request on one of its command topics to its answer.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use alicia_bus::{Request, Requests};
use alicia_contract::Problem;
use alicia_contract::orchestrator::ServiceCommand;
use futures_util::FutureExt;
use futures_util::future::select_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::context::Context;
use crate::error::{Error, problem};
use crate::handler::{self, CommandHandler, guarded};
use crate::presence;

/// Commands that are carried out at the same time; further ones wait in the queue of the bus.
const COMMANDS_MAX: usize = 64;
/// Characters of an unknown name that are repeated to the caller.
const NAME_SHOWN_CHARS: usize = 80;

/// Every command by name.
pub(crate) type Commands = BTreeMap<String, CommandHandler>;

/// The commands that every service has.
pub(crate) fn built_in() -> Commands {
    let ping = handler::command(|_cx, _arguments: Value| async { Ok(json!({ "pong": true })) });
    let status =
        handler::command(
            |cx: Context, _arguments: Value| async move { Ok(presence::heartbeat(&cx)) },
        );
    BTreeMap::from([("ping".to_owned(), ping), ("status".to_owned(), status)])
}

/// Requests on one command topic.
pub(crate) type CommandRequests = Requests<ServiceCommand, Value>;

/// Serves until the service stops, and then finishes what has begun. What waits by then is told at once that it
/// was not begun, so that its caller may ask another instance.
pub(crate) async fn serve(
    cx: Context,
    mut requests: Vec<CommandRequests>,
    commands: Commands,
    deadline: Duration,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = cx.stopping() => break,
            Some(_) = running.join_next(), if !running.is_empty() => {}
            request = next(&mut requests), if running.len() < COMMANDS_MAX => match request {
                Some(request) => {
                    let handling = prepare(&cx, &request, &commands, deadline);
                    running.spawn(answer(cx.clone(), request, handling));
                }
                None => break,
            }
        }
    }
    while let Some(Some(request)) = next(&mut requests).now_or_never() {
        let detail = "the service stops and has not begun with this".to_owned();
        let refused = problem(503, "service.stopping", "The service stops", detail);
        if let Err(error) = request.respond(Err(refused)).await {
            tracing::debug!(%error, "an answer did not get through");
        }
    }
    drop(requests);
    while running.join_next().await.is_some() {}
}

/// The next request of any topic; `None` when the bus is closed, or there is no topic.
async fn next(requests: &mut [CommandRequests]) -> Option<Request<ServiceCommand, Value>> {
    let waiting = requests.iter_mut().map(|topic| Box::pin(topic.next()));
    let waiting: Vec<_> = waiting.collect();
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    select_all(waiting).await.0
}

/// Counts a command while it is carried out, however it ends.
struct InFlight<'c>(&'c Context);

impl<'c> InFlight<'c> {
    fn begin(cx: &'c Context) -> Self {
        cx.inner().in_flight.fetch_add(1, Relaxed);
        Self(cx)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.inner().in_flight.fetch_sub(1, Relaxed);
    }
}

type Handling = handler::Boxed<Result<Value, Problem>>;

/// The handling of a request, not yet begun.
fn prepare(
    cx: &Context,
    request: &Request<ServiceCommand, Value>,
    commands: &Commands,
    deadline: Duration,
) -> Handling {
    let ServiceCommand { command, arguments } = &request.query;
    let Some(handler) = commands.get(command) else {
        return Box::pin(std::future::ready(Err(unknown(command, commands))));
    };
    let name = command.clone();
    let handler = handler.clone();
    let arguments = arguments.clone();
    let cx = cx.of(request.source.as_deref());
    Box::pin(async move {
        let handling = guarded(|| handler(cx, arguments));
        match timeout(deadline, handling).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(&name, error)),
            Err(_) => Err(too_slow(&name, deadline)),
        }
    })
}

async fn answer(cx: Context, request: Request<ServiceCommand, Value>, handling: Handling) {
    let answer = {
        let _counted = InFlight::begin(&cx);
        handling.await
    };
    cx.count(if answer.is_ok() {
        "commands"
    } else {
        "commands_failed"
    });
    if let Err(error) = request.respond(answer).await {
        tracing::warn!(%error, "an answer did not get through");
    }
}

fn unknown(command: &str, commands: &Commands) -> Problem {
    let shown: String = command.chars().take(NAME_SHOWN_CHARS).collect();
    let known: Vec<&str> = commands.keys().map(String::as_str).collect();
    problem(
        404,
        "service.unknown_command",
        "No such command",
        format!("no command {shown:?}, known: {}", known.join(", ")),
    )
}

/// The caller hears what a handler says on purpose; anything else may hold what it must not see.
fn failed(command: &str, error: Error) -> Problem {
    match error {
        Error::Refused(problem) => *problem,
        error => {
            tracing::error!(command, "{}", error.chain());
            problem(
                500,
                "service.failed",
                "The command failed",
                format!("{command} failed; the log of the service has the reason"),
            )
        }
    }
}

fn too_slow(command: &str, deadline: Duration) -> Problem {
    tracing::error!(command, ?deadline, "a command was given up");
    problem(
        504,
        "service.deadline_exceeded",
        "The command took too long",
        format!("{command} was given up after {deadline:?}"),
    )
}
