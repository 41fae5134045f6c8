//! The trace that the present task works for: it goes into the envelopes that the task sends.

tokio::task_local! {
    static TRACEPARENT: String;
}

/// Runs `work`; the envelopes that it sends carry this `traceparent` (W3C Trace Context).
pub async fn scope<F: Future>(traceparent: String, work: F) -> F::Output {
    TRACEPARENT.scope(traceparent, work).await
}

/// The `traceparent` of the present task; `None` when it works for no request.
#[must_use]
pub fn current() -> Option<String> {
    TRACEPARENT.try_with(String::clone).ok()
}
