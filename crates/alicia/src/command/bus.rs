//! `alicia bus`: speak and listen, as people know it from `mosquitto_pub` and `mosquitto_sub`.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use alicia_bus::{Bus, BusAddress, Options, PasswordSource, Qos, RawIncoming, RawMessage, Retain};
use alicia_contract::envelope::{Envelope, MESSAGE_BYTES_MAX, MessageType};
use alicia_contract::topic::Prefix;
use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use serde_json::{Value, json};

use crate::api::ApiClient;
use crate::cli::{Bus as Command, BusPub, BusSub, Global};
use crate::failure::{Failure, Outcome};
use crate::place;
use crate::show;

/// The broker is on this machine or near it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Retained messages arrive at once after the subscription; after this pause there are no more.
const RETAINED_PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn run(global: &Global, command: &Command) -> Outcome {
    match command {
        Command::Schema => schema(global),
        Command::Pub(publish) => {
            let connected = connect(global).await?;
            connected
                .drive(speak(&connected.bus, global, publish))
                .await
        }
        Command::Sub(subscribe) => {
            let connected = connect(global).await?;
            connected
                .drive(listen(&connected.bus, global, subscribe))
                .await
        }
    }
}

fn schema(global: &Global) -> Outcome {
    let prefix = place::load_file(global)?.settings.bus.prefix;
    super::print_json(&alicia_bus::asyncapi::document(&prefix))
}

/// A bus and the task that moves its bytes.
pub(super) struct Connected {
    bus: Bus,
    connection: tokio::sync::Mutex<std::pin::Pin<Box<dyn Future<Output = ()>>>>,
}

impl Connected {
    /// As whom it speaks.
    pub(super) fn source(&self) -> &str {
        self.bus.source()
    }

    /// Runs a command while the connection is kept going.
    async fn drive(&self, command: impl Future<Output = Outcome>) -> Outcome {
        let mut connection = self.connection.lock().await;
        let mut command = std::pin::pin!(command);
        tokio::select! {
            outcome = &mut command => outcome,
            // The command closed it and is about to end; or it is lost for good, and the command says so.
            () = connection.as_mut() => command.await,
        }
    }
}

/// Connects as the holder of the key.
pub(super) async fn connect(global: &Global) -> Outcome<Connected> {
    let api = ApiClient::find(global)?;
    let me: Value = api.get("/api/keys/me").await?;
    let address = me["bus"]
        .as_str()
        .ok_or_else(|| Failure::NoHost("the fleet has no bus".to_owned()))?;
    let address: BusAddress = address.parse()?;
    let (identity, user_name) = (text(&me["identity"]), text(&me["user_name"]));
    // The prefix of the file only names the reply topic here; filters are typed in full.
    let prefix = place::load_file(global)
        .map_or_else(|_| Prefix::default(), |file| file.settings.bus.prefix);
    let mut options = Options::at(address, identity, prefix);
    options.client_id = format!("{user_name}-cli-{}", std::process::id());
    options.username = user_name;
    options.password = PasswordSource::Fixed(api.key().unwrap_or_default().to_owned());
    let (bus, connection) = Bus::start(options);
    let connected = Connected {
        bus,
        connection: tokio::sync::Mutex::new(Box::pin(connection)),
    };
    let wait = async {
        connected.bus.connected(CONNECT_TIMEOUT).await?;
        Ok(ExitCode::SUCCESS)
    };
    connected.drive(wait).await?;
    Ok(connected)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn speak(bus: &Bus, global: &Global, publish: &BusPub) -> Outcome {
    let payload = read_payload(&publish.payload)?;
    let bytes = if publish.bare {
        payload
    } else {
        in_envelope(bus.source(), &payload)?
    };
    let qos = if publish.qos == 0 {
        Qos::AtMostOnce
    } else {
        Qos::AtLeastOnce
    };
    let retain = if publish.retain {
        Retain::Yes
    } else {
        Retain::No
    };
    let length = bytes.len();
    bus.raw_publish(&publish.topic, bytes, qos, retain).await?;
    bus.close().await;
    if global.json {
        show::json(&json!({ "topic": publish.topic, "bytes": length }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_payload(argument: &str) -> Outcome<Vec<u8>> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    let limit = MESSAGE_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .context("read standard input")?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "a message has at most {MESSAGE_BYTES_MAX} bytes"
        )));
    }
    Ok(bytes)
}

/// JSON goes in as it is, any other text as a JSON string. A whole envelope stays one.
fn in_envelope(source: &str, payload: &[u8]) -> Outcome<Vec<u8>> {
    let value: Value = serde_json::from_slice(payload)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(payload).into_owned()));
    if value.get("message_type").is_some() && value.get("payload").is_some() {
        return Ok(serde_json::to_vec(&value)?);
    }
    let id = format!("cli-{}-{:.6}", std::process::id(), show::now());
    let envelope = Envelope::new(id, show::now(), source, MessageType::Event, value);
    Ok(serde_json::to_vec(&envelope)?)
}

async fn listen(bus: &Bus, global: &Global, subscribe: &BusSub) -> Outcome {
    let all = [format!("{}/#", bus.prefix())];
    let filters = if subscribe.filters.is_empty() {
        &all[..]
    } else {
        &subscribe.filters[..]
    };
    let mut incoming = SelectAll::new();
    for filter in filters {
        let subscription = bus.raw_subscribe(filter).await?;
        incoming.push(Box::pin(futures_util::stream::unfold(
            subscription,
            |mut subscription| async { Some((subscription.next().await?, subscription)) },
        )));
    }
    let pause = if subscribe.retained {
        Some(RETAINED_PAUSE)
    } else {
        subscribe.wait.map(|wait| wait.duration())
    };
    let mut shown = 0;
    while subscribe.count.is_none_or(|count| shown < count) {
        let next = match pause {
            None => incoming.next().await,
            Some(pause) => match tokio::time::timeout(pause, incoming.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        match next {
            None => break,
            Some(RawIncoming::Message(message)) if is_wanted(&message, subscribe) => {
                show_message(&message, global.json);
                shown += 1;
            }
            Some(RawIncoming::Message(_)) => {}
            Some(RawIncoming::Lagged(missed)) => {
                eprintln!("too slow: {missed} messages were not shown")
            }
            Some(RawIncoming::Reconnected) => {
                eprintln!("connected again; messages may have been missed")
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_wanted(message: &RawMessage, subscribe: &BusSub) -> bool {
    if message.retained {
        !subscribe.no_retained
    } else {
        !subscribe.retained
    }
}

fn show_message(message: &RawMessage, as_json: bool) {
    let payload = String::from_utf8_lossy(&message.payload);
    if as_json {
        let payload: Value =
            serde_json::from_str(&payload).unwrap_or_else(|_| Value::from(payload.as_ref()));
        println!(
            "{}",
            json!({ "topic": message.topic, "retained": message.retained, "payload": payload })
        );
        return;
    }
    let topic = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
    let mark = if message.retained { " (retained)" } else { "" };
    anstream::println!(
        "{topic}{}{topic:#}{mark} {}",
        show::one_line(&message.topic),
        show::one_line(&payload)
    );
}
