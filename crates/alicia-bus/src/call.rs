//! Calls: the one who asks, and the one who answers.
//!
//! The reply topic and the correlation are said twice, in the MQTT 5 properties and in the envelope, and
//! requests that say them only once are answered in the same way.

use std::collections::{HashSet, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::envelope::{DropReason, MESSAGE_BYTES_MAX};
use alicia_contract::problem::InputFault;
use alicia_contract::{Envelope, MessageType, Prefix, Problem, object};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bus::{Bus, encode};
use crate::delivery::Delivery;
use crate::error::{CallError, Error};
use crate::queue::Taken;
use crate::reply::may_answer;
use crate::shared::{CALLS_MAX, Outgoing, Published, Shared};
use crate::signing::Distrust;
use crate::status::lock;
use crate::subscription::{Feed, payload, received, values};

/// What is wrong with a request that is no message.
const NOT_AN_ENVELOPE: &str = "expected JSON in UTF-8; in an envelope every field of its type, and `message_id`, `source` \
                               and `correlation_id` of at most 1024 bytes";

/// Requests whose ids are remembered, so that one that is delivered twice is acted on once.
const SEEN_MAX: usize = 1_024;

/// The longest text of a refusal, in characters. It may quote what was asked, which may be as long as a message.
const TEXT_CHARS_MAX: usize = 4_000;

/// The longest text of a single fault in it, in characters.
const FAULT_CHARS_MAX: usize = 400;

/// Most single faults of a refusal.
const FAULTS_MAX: usize = 100;

/// Why a retained request is refused.
const RETAINED: &str = "a retained request would be carried out again at each new connection";

/// Why a request without a signature is refused.
const UNSIGNED: &str = "commands must be signed here (`identity.signatures` of the file); services on the client \
                        libraries and agents that joined sign by themselves, holders of API keys use REST";

/// Takes the call out of the list of those that wait, however it ends.
struct Waiting<'a> {
    shared: &'a Shared,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.shared.calls).remove(&self.id);
    }
}

/// Asks and waits for the answer.
pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
    bus: &Bus,
    topic: &str,
    query: &Q,
    deadline: Duration,
) -> Result<A, CallError> {
    let answer = timeout(deadline, ask(bus, topic, query)).await;
    let delivery = answer.unwrap_or_else(|_| {
        Err(CallError::TimedOut {
            topic: topic.to_owned(),
            after: deadline,
        })
    })?;
    read_answer(bus, topic, &delivery)
}

async fn ask<Q: Serialize>(bus: &Bus, topic: &str, query: &Q) -> Result<Arc<Delivery>, CallError> {
    let shared = bus.shared();
    let mut envelope = shared.envelope(MessageType::Request, topic, query)?;
    let id = envelope.message_id.clone();
    envelope.correlation_id = Some(id.clone());
    envelope.reply_to = Some(shared.reply_topic.clone());
    let payload = encode(topic, &envelope)?;
    let signing = shared.options.signing.as_ref();
    let message = Outgoing {
        topic: topic.to_owned(),
        signature: signing.and_then(|signing| signing.sign(topic, &payload, shared.now())),
        payload,
        response_topic: envelope.reply_to.clone(),
        correlation: Some(Bytes::from(id.clone())),
        ..Outgoing::default()
    };
    subscribe_to_replies(shared).await?;
    let (answer, answered) = oneshot::channel();
    let _waiting = wait(shared, topic, id, answer)?;
    match bus.send_unbounded(message).await? {
        Published::Unheard => Err(CallError::NobodyListens {
            topic: topic.to_owned(),
        }),
        Published::Taken => answered.await.map_err(|_| Error::Closed.into()),
    }
}

/// The reply topic is subscribed by the first call and stays so.
async fn subscribe_to_replies(shared: &Shared) -> Result<(), Error> {
    let (waiter, made) = oneshot::channel();
    lock(&shared.router).pin(&shared.reply_topic, waiter);
    shared.changed.notify_one();
    made.await.map_err(|_| Error::Closed)?
}

fn wait<'a>(
    shared: &'a Shared,
    topic: &str,
    id: String,
    answer: oneshot::Sender<Arc<Delivery>>,
) -> Result<Waiting<'a>, CallError> {
    let mut calls = lock(&shared.calls);
    if calls.len() >= CALLS_MAX {
        return Err(CallError::TooManyCalls {
            topic: topic.to_owned(),
            calls_max: CALLS_MAX,
        });
    }
    calls.insert(id.clone(), answer);
    Ok(Waiting { shared, id })
}

fn read_answer<A: DeserializeOwned>(
    bus: &Bus,
    topic: &str,
    delivery: &Delivery,
) -> Result<A, CallError> {
    let wrong = |reason| {
        bus.shared().dropped(delivery, reason);
        CallError::Answer {
            topic: topic.to_owned(),
            reason,
        }
    };
    let received = delivery.read().0.map_err(wrong)?;
    let is_error = received
        .envelope
        .as_ref()
        .is_some_and(|envelope| envelope.message_type == MessageType::Error);
    if is_error {
        return Err(CallError::Refused {
            topic: topic.to_owned(),
            problem: Box::new(payload(received).unwrap_or_else(|_| plain(&received.payload))),
        });
    }
    payload(received).map_err(wrong)
}

/// The problem of a responder that does not write problem documents.
fn plain(payload: &serde_json::Value) -> Problem {
    let text = ["detail", "message", "error"]
        .iter()
        .find_map(|field| payload.get(field)?.as_str());
    problem(
        500,
        "bus.error_answer",
        text.map_or_else(|| payload.to_string(), str::to_owned),
    )
}

fn problem(status: u16, code: &str, detail: String) -> Problem {
    Problem {
        kind: format!("/docs/errors/{code}"),
        title: "A call failed".to_owned(),
        status,
        detail,
        code: code.to_owned(),
        request_id: None,
        faults: Vec::new(),
    }
}

/// Requests of one type. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Requests<Q, A> {
    feed: Feed,
    seen: Seen,
    types: PhantomData<fn() -> (Q, A)>,
}

impl<Q: DeserializeOwned, A: Serialize> Requests<Q, A> {
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            feed,
            seen: Seen::default(),
            types: PhantomData,
        }
    }

    /// The next request; `None` when the bus is closed. A request that is delivered twice comes once;
    /// one that cannot be read is counted, answered with an error and skipped. The future may be dropped
    /// at any time without loss.
    pub async fn next(&mut self) -> Option<Request<Q, A>> {
        loop {
            // Callers whose requests were lost here run into their deadlines and ask again.
            let Taken::Delivery(delivery) = self.feed.next().await? else {
                continue;
            };
            if delivery.raw.retained {
                self.refuse(&delivery, "bus.retained_request", RETAINED.to_owned());
                continue;
            }
            if !self.trusts(&delivery) {
                continue;
            }
            match self.request(&delivery) {
                Ok(Some(request)) => return Some(request),
                Ok(None) => {}
                Err(Some(reason)) => self.drop_request(&delivery, reason),
                Err(None) => {}
            }
        }
    }

    /// Whether the request may be taken, as far as signatures go. One that may not is answered, but for a second
    /// delivery, whose answer is under way.
    fn trusts(&self, delivery: &Delivery) -> bool {
        let shared = self.feed.shared();
        let Some(signing) = &shared.options.signing else {
            return true;
        };
        let distrust = match signing.judge(&shared.options.prefix, delivery, shared.now()) {
            Ok(_) => return true,
            Err(distrust) => distrust,
        };
        let (reason, refusal) = match distrust {
            Distrust::Repeated => (DropReason::Repeated, None),
            Distrust::Unsigned => (
                DropReason::Unsigned,
                Some(("bus.signature_required", UNSIGNED.to_owned())),
            ),
            Distrust::Bad(fault) => (
                DropReason::BadSignature,
                Some((
                    "bus.bad_signature",
                    format!("the signature of the command is not accepted: {fault}"),
                )),
            ),
        };
        shared.dropped(delivery, reason);
        if let Some((code, detail)) = refusal {
            self.refuse(delivery, code, detail);
        }
        false
    }

    fn request(
        &mut self,
        delivery: &Delivery,
    ) -> Result<Option<Request<Q, A>>, Option<DropReason>> {
        let received = received(delivery)?;
        let id = received.envelope.as_ref().map(|head| &head.message_id);
        if id.is_some_and(|id| !self.seen.is_new(id)) {
            return Ok(None);
        }
        let topic = delivery.raw.topic.clone();
        Ok(Some(Request {
            query: payload(received)?,
            source: delivery.source().map(str::to_owned),
            values: values(self.feed.filter(), &topic),
            topic,
            envelope: received.envelope.clone().map(Box::new),
            bus: self.feed.bus().clone(),
            reply: Reply::of(&self.feed.shared().options.prefix, delivery),
            types: PhantomData,
        }))
    }

    fn drop_request(&self, delivery: &Delivery, reason: DropReason) {
        self.feed.shared().dropped(delivery, reason);
        let why = match reason {
            DropReason::WrongPayload => wrong_payload::<Q>(delivery),
            DropReason::NotAnEnvelope => NOT_AN_ENVELOPE.to_owned(),
            DropReason::TooLarge => format!("it has more than {MESSAGE_BYTES_MAX} bytes"),
            // An expired request and a looping one have nobody who waits; what is not trusted is answered elsewhere.
            _ => return,
        };
        let detail = format!("the request cannot be read: {why}");
        self.refuse(delivery, "bus.unreadable_request", detail);
    }

    fn refuse(&self, delivery: &Delivery, code: &str, detail: String) {
        let Some(reply) = Reply::of(&self.feed.shared().options.prefix, delivery) else {
            return;
        };
        let problem = problem(400, code, detail);
        match reply.message(self.feed.shared(), Err::<A, _>(problem)) {
            Ok(message) => self.feed.bus().post(message),
            Err(error) => tracing::debug!(%error, "a refused request was not answered"),
        }
    }
}

/// One request. It is answered with [`Self::respond`]; dropped, it leaves the caller to its deadline.
#[derive(Debug)]
pub struct Request<Q, A> {
    /// What is asked.
    pub query: Q,
    /// Who asks; see [`crate::Message::source`].
    pub source: Option<String>,
    /// The whole topic.
    pub topic: String,
    /// The values of the varying levels of the topic, in order.
    pub values: Vec<String>,
    /// The envelope (its payload taken out); none around a bare payload.
    pub envelope: Option<Box<Envelope>>,
    bus: Bus,
    reply: Option<Reply>,
    types: PhantomData<fn(A)>,
}

impl<Q, A: Serialize> Request<Q, A> {
    /// Answers, and waits until the broker has the answer. One who wants no answer gets none; one whose answer is
    /// longer than a message may be is told so.
    ///
    /// # Errors
    /// When the broker does not have it in time.
    pub async fn respond(self, answer: Result<A, Problem>) -> Result<(), Error> {
        let Self { bus, reply, .. } = self;
        let Some(reply) = reply else {
            return Ok(());
        };
        match reply.send(&bus, answer).await {
            Err(Error::TooLarge {
                bytes, bytes_max, ..
            }) => {
                let too_large = answer_too_large(bytes, bytes_max);
                reply.send(&bus, Err::<A, _>(too_large)).await
            }
            sent => sent,
        }
    }

    /// Whether somebody waits for the answer.
    #[must_use]
    pub fn wants_answer(&self) -> bool {
        self.reply.is_some()
    }
}

/// Where an answer goes and what it says it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    topic: String,
    data: Option<Bytes>,
    id: Option<String>,
}

impl Reply {
    /// From the MQTT 5 properties, the envelope, or both; `None` when no answer is wanted or allowed.
    fn of(prefix: &Prefix, delivery: &Delivery) -> Option<Self> {
        let envelope = match delivery.read().0 {
            Ok(received) => received.envelope.as_ref(),
            Err(_) => None,
        };
        let said = envelope.and_then(|envelope| envelope.reply_to.clone());
        let topic = delivery.raw.response_topic.clone().or(said)?;
        let senders: Vec<&str> = envelope
            .map(|envelope| envelope.source.as_str())
            .into_iter()
            .chain(delivery.raw.source.as_deref())
            .collect();
        if !may_answer(prefix, &senders, &topic) {
            tracing::debug!(
                topic,
                "a request wants its answer on a topic that is not for answers to its sender"
            );
            return None;
        }
        let data = delivery.raw.correlation.clone();
        let id = envelope.map(|envelope| {
            let id = envelope.correlation_id.as_ref();
            id.unwrap_or(&envelope.message_id).clone()
        });
        Some(Self {
            topic,
            id: id.or_else(|| {
                let data = data.as_ref()?;
                Some(String::from_utf8_lossy(data).into_owned())
            }),
            data: data.or_else(|| Some(Bytes::from(envelope?.correlation_id.clone()?))),
        })
    }

    fn message<A: Serialize>(
        &self,
        shared: &Shared,
        answer: Result<A, Problem>,
    ) -> Result<Outgoing, Error> {
        let mut envelope = match answer {
            Ok(answer) => shared.envelope(MessageType::Response, &self.topic, &answer),
            Err(problem) => shared.envelope(MessageType::Error, &self.topic, &short(problem)),
        }?;
        envelope.correlation_id.clone_from(&self.id);
        Ok(Outgoing {
            payload: encode(&self.topic, &envelope)?,
            topic: self.topic.clone(),
            correlation: self.data.clone(),
            ..Outgoing::default()
        })
    }

    async fn send<A: Serialize>(&self, bus: &Bus, answer: Result<A, Problem>) -> Result<(), Error> {
        let message = self.message(bus.shared(), answer)?;
        bus.send_message(message).await.map(drop)
    }
}

/// What is wrong with a payload that does not fit its topic, in the words of the reader.
fn wrong_payload<Q: DeserializeOwned>(delivery: &Delivery) -> String {
    let read = received(delivery).map(|received| object::read::<Q>(&received.payload));
    match read {
        Ok(Err(error)) => error.to_string(),
        _ => DropReason::WrongPayload.to_string(),
    }
}

fn answer_too_large(bytes: usize, bytes_max: usize) -> Problem {
    let detail = format!(
        "the answer has {bytes} bytes, a message at most {bytes_max}; what was asked for is done: ask for less, or over REST"
    );
    Problem {
        status: 413,
        ..problem(400, "bus.answer_too_large", detail)
    }
}

/// A refusal that fits into a message whatever was asked: what it quotes is cut.
fn short(problem: Problem) -> Problem {
    let mut faults = problem.faults;
    faults.truncate(FAULTS_MAX);
    let cut_fault = |fault: InputFault| InputFault {
        pointer: cut(fault.pointer, FAULT_CHARS_MAX),
        message: cut(fault.message, FAULT_CHARS_MAX),
    };
    Problem {
        title: cut(problem.title, FAULT_CHARS_MAX),
        detail: cut(problem.detail, TEXT_CHARS_MAX),
        faults: faults.into_iter().map(cut_fault).collect(),
        ..problem
    }
}

fn cut(mut text: String, chars_max: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The ids of the last requests.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn is_new(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ids_are_known_and_the_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new("a"));
        assert!(!seen.is_new("a"));
        for n in 0..SEEN_MAX {
            assert!(seen.is_new(&n.to_string()));
        }
        assert!(seen.is_new("a"), "the oldest id was kept");
        assert_eq!(seen.ids.len(), SEEN_MAX);
    }

    #[test]
    fn a_refusal_quotes_no_more_than_fits_into_a_message() {
        // The worst that JSON makes of a character: six bytes.
        let long = "\u{1}".repeat(MESSAGE_BYTES_MAX);
        let fault = InputFault {
            pointer: long.clone(),
            message: "short".to_owned(),
        };
        let refusal = short(Problem {
            faults: vec![fault; FAULTS_MAX + 1],
            ..problem(400, "bus.unreadable_request", long)
        });
        assert_eq!(refusal.detail.chars().count(), TEXT_CHARS_MAX + 1);
        assert_eq!(refusal.faults.len(), FAULTS_MAX);
        assert_eq!(refusal.faults[0].message, "short");
        let bytes = serde_json::to_vec(&refusal).expect("a problem").len();
        assert!(bytes < MESSAGE_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn an_error_that_is_no_problem_document_is_still_readable() {
        let check = |payload: serde_json::Value, detail: &str| {
            assert_eq!(plain(&payload).detail, detail);
        };
        check(serde_json::json!({"error": "no"}), "no");
        check(serde_json::json!("no"), "\"no\"");
    }
}
