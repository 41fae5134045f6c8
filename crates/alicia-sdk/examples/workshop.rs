//! A service that does everything that a service may do, also wrongly. The tests of this crate run it.

use std::time::Duration;

use alicia_sdk::{Capability, Error, HeartbeatStatus, JsonSchema, Message, Service, Value, json};

#[derive(serde::Deserialize)]
struct Wait {
    ms: u64,
}

#[derive(serde::Deserialize, JsonSchema)]
struct Glue {
    /// 1 to 9.
    #[schemars(range(min = 1, max = 9))]
    parts: u32,
}

/// A test makes the heartbeats rare, to tell answers from them: the first argument, in seconds.
fn heartbeat_every() -> Duration {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    seconds.map_or(Duration::from_millis(200), Duration::from_secs)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Service::from_env("workshop")?
        .version("1.2.3")
        .capability(
            Capability::new("glue").version("2.0.0").tag("wood"),
            |cx, glue: Glue| async move {
                let by = cx.instance().to_string();
                Ok(json!({ "glued": glue.parts, "by": by }))
            },
        )
        .label("room", "cellar")
        .heartbeat_every(heartbeat_every())
        .command_deadline(Duration::from_secs(2))
        .command("echo", |cx, said: Value| async move {
            Ok(json!({ "said": said, "by": cx.caller() }))
        })
        .command("wait", |_cx, wait: Wait| async move {
            tokio::time::sleep(Duration::from_millis(wait.ms)).await;
            Ok("waited")
        })
        .command("refuse", |_cx, (): ()| async move {
            Err::<(), _>(Error::refused(409, "not today"))
        })
        .command("fail", |_cx, (): ()| async move {
            Err::<(), _>(Error::other("the secret reason"))
        })
        .command("panic", |_cx, (): ()| async move {
            let mut nothing = Vec::<u8>::new();
            Ok(nothing.remove(0))
        })
        .command("degrade", |cx, (): ()| async move {
            cx.set_health(HeartbeatStatus::Unhealthy, Some("out of glue"));
            Ok(())
        })
        .command("ask", |cx, whom: String| async move {
            let deadline = Duration::from_secs(1);
            cx.call::<Value>(&whom, "ping", &(), deadline).await
        })
        .command("stop", |cx, (): ()| async move {
            cx.stop();
            Ok(())
        })
        .on("rooms/+/temperature", |cx, room: Message<f64>| async move {
            cx.count("rooms_heard");
            let heard = json!({ "room": room.values[0], "celsius": room.payload });
            cx.publish("workshop/heard", &heard).await
        })
        .every(Duration::from_millis(100), |cx| async move {
            cx.publish("workshop/tick", &cx.instance().as_str()).await
        })
        .run()
        .await
}
