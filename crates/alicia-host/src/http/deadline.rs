//! A request body that has to come in time. hyper bounds the time of the head only: a client that never sends the rest
//! of its body would hold its connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// From the first time that a body is waited for to its end. The largest is 1 MiB and comes from this machine.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that fails when it is not whole in time.
pub(super) struct InTime<B> {
    body: B,
    /// None until the body is waited for: most requests have none.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> InTime<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            deadline: None,
        }
    }
}

impl<B: Body + Unpin> Body for InTime<B>
where
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = this
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(BODY_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body as AnyBody, Bytes, to_bytes};
    use futures_util::StreamExt;
    use futures_util::stream;

    async fn read(body: AnyBody) -> Result<Bytes, axum::Error> {
        to_bytes(AnyBody::new(InTime::new(body)), 100).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_fails_and_a_slow_one_comes_through() {
        let pieces = || stream::iter(["a", "b"].map(Ok::<_, io::Error>));
        let endless = AnyBody::from_stream(pieces().chain(stream::pending()));
        assert!(read(endless).await.is_err());
        let slow = pieces().then(async |piece| {
            sleep(BODY_TIMEOUT / 3).await;
            piece
        });
        let slow = read(AnyBody::from_stream(Box::pin(slow))).await;
        assert_eq!(slow.expect("it is in time"), "ab");
    }
}
