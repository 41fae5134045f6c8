//! Handlers of every type as functions of one type.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alicia_bus::{Incoming, Message};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::error::{Error, problem};

/// A future that may be sent to another thread.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The handler of a command: JSON in, JSON out.
pub(crate) type CommandHandler =
    Arc<dyn Fn(Context, Value) -> Boxed<Result<Value, Error>> + Send + Sync>;

/// A listener: subscribes and handles until the service stops.
pub(crate) type Listener = Box<dyn FnOnce(Context, String) -> Boxed<()> + Send>;

/// A timer that runs until the service stops.
pub(crate) type Timer = Box<dyn FnOnce(Context) -> Boxed<()> + Send>;

/// A typed command handler as one of JSON.
pub(crate) fn command<Q, A, F, R>(handler: F) -> CommandHandler
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + 'static,
    F: Fn(Context, Q) -> R + Send + Sync + 'static,
    R: Future<Output = Result<A, Error>> + Send + 'static,
{
    Arc::new(move |cx, arguments| match read_arguments(arguments) {
        Ok(arguments) => {
            let handling = handler(cx, arguments);
            Box::pin(async move { Ok(serde_json::to_value(handling.await?)?) })
        }
        Err(error) => Box::pin(std::future::ready(Err(error))),
    })
}

/// No arguments are as good as an empty object, for handlers whose fields are all optional, and the other way
/// round, for those that take none.
fn read_arguments<Q: DeserializeOwned>(arguments: Value) -> Result<Q, Error> {
    let other = match &arguments {
        Value::Null => Some(Value::Object(Map::new())),
        Value::Object(fields) if fields.is_empty() => Some(Value::Null),
        _ => None,
    };
    serde_json::from_value(arguments)
        .or_else(|error| match other {
            Some(other) => serde_json::from_value(other),
            None => Err(error),
        })
        .map_err(|error| {
            Error::Refused(Box::new(problem(
                422,
                "service.invalid_arguments",
                "The arguments do not fit",
                error.to_string(),
            )))
        })
}

/// A typed message handler as a listener. It handles one message at a time, in order.
pub(crate) fn listener<T, F, R>(handler: F) -> Listener
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(Context, Message<T>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    Box::new(move |cx, filter| Box::pin(listen(cx, filter, handler)))
}

async fn listen<T, F, R>(cx: Context, filter: String, handler: F)
where
    T: DeserializeOwned,
    F: Fn(Context, Message<T>) -> R,
    R: Future<Output = Result<(), Error>>,
{
    let subscribed = persist(|| cx.bus().events_at::<T>(&filter)).await;
    let mut subscription = match subscribed {
        Ok(subscription) => subscription,
        Err(error) => {
            tracing::error!(%error, filter, "a handler will hear nothing");
            cx.inner().vitals.refused(&filter);
            return;
        }
    };
    loop {
        let incoming = tokio::select! {
            () = cx.stopping() => return,
            incoming = subscription.next() => incoming,
        };
        match incoming {
            None => return,
            Some(Incoming::Message(message)) => {
                let handling_cx = cx.of(message.source.as_deref());
                let handled = guarded(|| handler(handling_cx, message)).await;
                note(&cx, &filter, handled);
            }
            // What is lost cannot be had again: it is counted, and timers reconcile.
            Some(Incoming::Lagged(lost)) => cx.count_by("messages_lost", lost as f64),
            Some(Incoming::Cleared { .. } | Incoming::Reconnected) => {}
        }
    }
}

/// A periodic handler as a timer. A round that takes longer than the period lets the missed ones go.
pub(crate) fn timer<F, R>(period: Duration, handler: F) -> Timer
where
    F: Fn(Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    Box::new(move |cx| Box::pin(tick(cx, period, handler)))
}

/// Subscribes until the broker says yes or no: one that is slow is asked again.
pub(crate) async fn persist<T, R>(subscribe: impl Fn() -> R) -> Result<T, alicia_bus::Error>
where
    R: Future<Output = Result<T, alicia_bus::Error>>,
{
    loop {
        match subscribe().await {
            Err(alicia_bus::Error::TimedOut { .. }) => {}
            decided => return decided,
        }
    }
}

async fn tick<F, R>(cx: Context, period: Duration, handler: F)
where
    F: Fn(Context) -> R,
    R: Future<Output = Result<(), Error>>,
{
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = cx.stopping() => return,
            _ = interval.tick() => {}
        }
        let handled = guarded(|| handler(cx.of(None))).await;
        note(&cx, "timer", handled);
    }
}

/// Logs and counts what a handler did that nobody waits for.
fn note(cx: &Context, what: &str, handled: Result<(), Error>) {
    match handled {
        Ok(()) => cx.count("handled"),
        Err(error) => {
            cx.count("handler_errors");
            tracing::warn!(handler = what, "{}", error.chain());
        }
    }
}

/// Runs a handler; its panic is an error like others.
pub(crate) async fn guarded<T, R>(handler: impl FnOnce() -> R) -> Result<T, Error>
where
    R: Future<Output = Result<T, Error>>,
{
    let caught = AssertUnwindSafe(async { handler().await }).catch_unwind();
    match caught.await {
        Ok(result) => result,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned());
            Err(Error::Panicked(text.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Arguments {
        #[serde(default)]
        n: u32,
    }

    #[test]
    fn arguments_may_be_left_out_when_none_is_needed() {
        assert_eq!(
            read_arguments::<Arguments>(Value::Null).expect("reads"),
            Arguments { n: 0 }
        );
        read_arguments::<()>(Value::Null).expect("reads");
        read_arguments::<()>(json!({})).expect("reads");
        assert!(read_arguments::<()>(json!({"n": 1})).is_err());
        assert_eq!(
            read_arguments::<Value>(Value::Null).expect("reads"),
            Value::Null
        );
        let wrong = read_arguments::<Arguments>(json!({"n": "x"})).expect_err("is refused");
        let Error::Refused(problem) = wrong else {
            panic!("expected a refusal");
        };
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (422, "service.invalid_arguments")
        );
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let panics = guarded(|| async { Err::<(), _>(Error::other(format!("{}", [0][1 - 1]))) });
        assert!(matches!(panics.await, Err(Error::Handler(_))));
        let text = "on purpose".to_owned();
        let panics = guarded::<(), _>(|| async move { panic!("{text}") });
        match panics.await {
            Err(Error::Panicked(text)) => assert_eq!(text, "on purpose"),
            other => panic!("expected a panic, got {other:?}"),
        }
    }
}
