//! The stand-in: a process whose output, signals and end are those of a container.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::sleep;

use alicia_contract::fleet::Pull;

use crate::engine::{Ask, Engine, Error, escape};
use crate::frames::{Frames, Stream};
use crate::settings::{Settings, request};
use crate::sweep::{Which, remove, remove_one};

/// How long what the container still says is waited for after its end.
const OUTPUT_REST_MAX: Duration = Duration::from_secs(5);

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The exit status, 0 to 255; 128 and a signal when one ended it.
    pub code: u8,
    /// Whether the kernel killed it because it had no more memory.
    pub out_of_memory: bool,
}

/// Where the output goes.
struct Output<O, E> {
    output: O,
    errors: E,
}

/// Runs a container from its creation to its removal.
///
/// `signals` are numbers of signals to hand on. After the stop signal the container has the grace of the settings; then
/// the engine kills it. An earlier container of the same slot is removed first: two never run at once.
///
/// # Errors
/// What the engine refused. Nothing of the container is left then.
pub async fn run<O, E>(
    engine: &Engine,
    settings: &Settings,
    environment: &BTreeMap<String, String>,
    mut signals: mpsc::Receiver<i32>,
    (output, errors): (O, E),
) -> Result<Ended, Error>
where
    O: AsyncWrite + Unpin + Send + 'static,
    E: AsyncWrite + Unpin + Send + 'static,
{
    let mark = &settings.mark;
    let slot = Which::Slot(&mark.service, mark.slot);
    remove(engine, &mark.fleet, &slot).await?;
    fetch(engine, settings).await?;
    let id = create(engine, settings, environment).await?;
    let ended = follow(
        engine,
        settings,
        &id,
        &mut signals,
        Output { output, errors },
    )
    .await;
    let removed = remove_one(engine, &id).await;
    let ended = ended?;
    removed.map(|()| ended)
}

/// Fetches the image when that is wanted.
async fn fetch(engine: &Engine, settings: &Settings) -> Result<(), Error> {
    let image = &settings.container.image;
    let is_there = match settings.container.pull {
        Pull::Never => return Ok(()),
        Pull::Always => false,
        Pull::Missing => {
            let path = format!("/images/{}/json", escape(image));
            match engine.ask(Ask::get("look for the image", path)).await {
                Ok(_) => true,
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error),
            }
        }
    };
    if is_there {
        return Ok(());
    }
    // An image without a tag or digest would mean all of its tags.
    let last = image.rsplit('/').next().unwrap_or(image);
    let tag = if last.contains([':', '@']) {
        ""
    } else {
        ":latest"
    };
    let what = format!("fetch the image {image}");
    let path = format!(
        "/images/create?fromImage={}",
        escape(&format!("{image}{tag}"))
    );
    let (_, mut body) = engine.send(Ask::post(&what, path, None)).await?;
    // Progress comes as lines of JSON; an error in one of them is the only sign of failure.
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Talk(error.to_string()))?;
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        let end = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in text[..end].split(|byte| *byte == b'\n') {
            let said: Value = serde_json::from_slice(line).unwrap_or_default();
            if let Some(message) = said["error"].as_str() {
                return Err(Error::Refused {
                    what,
                    status: 500,
                    message: message.to_owned(),
                });
            }
        }
        text.drain(..end);
    }
    Ok(())
}

async fn create(
    engine: &Engine,
    settings: &Settings,
    environment: &BTreeMap<String, String>,
) -> Result<String, Error> {
    let path = format!("/containers/create?name={}", escape(&settings.name()));
    let what = format!("make a container of {}", settings.container.image);
    let body = request(settings, environment);
    let made = engine.ask(Ask::post(&what, path, Some(body))).await?;
    match made["Id"].as_str() {
        Some(id) => Ok(id.to_owned()),
        None => Err(Error::Talk("the new container has no id".to_owned())),
    }
}

/// Starts it, and stays with it to its end.
async fn follow<O, E>(
    engine: &Engine,
    settings: &Settings,
    id: &str,
    signals: &mut mpsc::Receiver<i32>,
    to: Output<O, E>,
) -> Result<Ended, Error>
where
    O: AsyncWrite + Unpin + Send + 'static,
    E: AsyncWrite + Unpin + Send + 'static,
{
    // Attached before the start, so that no line is missed.
    let path = format!("/containers/{id}/attach?stream=true&stdout=true&stderr=true");
    let (_, said) = engine
        .send(Ask::post("attach to the container", path, None))
        .await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "this is a program of its own: no module owns the task, and it ends with the stream"
    )]
    let output = tokio::spawn(copy(said, to));
    let path = format!("/containers/{id}/start");
    engine
        .ask(Ask::post("start the container", path, None))
        .await?;
    let path = format!("/containers/{id}/wait");
    let (_, end) = engine
        .send(Ask::post("wait for the container", path, None))
        .await?;
    let mut end = std::pin::pin!(end.collect());
    let grace = sleep(Duration::MAX);
    tokio::pin!(grace);
    let mut is_stopping = false;
    let ended = loop {
        tokio::select! {
            ended = &mut end => break ended,
            () = &mut grace => {
                grace.set(sleep(Duration::MAX));
                signal(engine, id, "SIGKILL").await?;
            }
            Some(number) = signals.recv() => {
                if is_stop(number, settings) && !is_stopping {
                    is_stopping = true;
                    grace.set(sleep(Duration::from_millis(settings.stop_grace_ms)));
                }
                signal(engine, id, &number.to_string()).await?;
            }
        }
    };
    ended.map_err(|error| Error::Talk(error.to_string()))?;
    let ended = inspect(engine, id).await;
    // The attached stream ends with the container. When it cannot be written, nobody reads it.
    drop(tokio::time::timeout(OUTPUT_REST_MAX, output).await);
    ended
}

fn is_stop(number: i32, settings: &Settings) -> bool {
    // SIGTERM always: the keeper sends it when it stops everything.
    number == 15 || settings.stop_signal == name_of(number)
}

fn name_of(number: i32) -> &'static str {
    match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        10 => "SIGUSR1",
        12 => "SIGUSR2",
        15 => "SIGTERM",
        28 => "SIGWINCH",
        _ => "",
    }
}

async fn signal(engine: &Engine, id: &str, signal: &str) -> Result<(), Error> {
    let path = format!("/containers/{id}/kill?signal={signal}");
    match engine
        .ask(Ask::post("signal the container", path, None))
        .await
    {
        // It has ended meanwhile.
        Err(Error::Refused {
            status: 404 | 409, ..
        })
        | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn inspect(engine: &Engine, id: &str) -> Result<Ended, Error> {
    let path = format!("/containers/{id}/json");
    let found = engine
        .ask(Ask::get("say how the container ended", path))
        .await?;
    let state = &found["State"];
    let code = state["ExitCode"]
        .as_u64()
        .and_then(|code| u8::try_from(code).ok());
    Ok(Ended {
        code: code.unwrap_or(u8::MAX),
        out_of_memory: state["OOMKilled"].as_bool().unwrap_or(false),
    })
}

/// Hands on what the container says. Its lines go through whole, and each stream keeps its order.
async fn copy<O, E>(mut said: Incoming, mut to: Output<O, E>) -> std::io::Result<()>
where
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    let mut frames = Frames::default();
    while let Some(Ok(frame)) = said.frame().await {
        frames.push(frame.data_ref().map_or(&[][..], |data| data));
        while let Some((stream, bytes)) = frames.next() {
            match stream {
                Stream::Output => to.output.write_all(&bytes).await?,
                Stream::Errors => to.errors.write_all(&bytes).await?,
            }
        }
        to.output.flush().await?;
        to.errors.flush().await?;
    }
    Ok(())
}
