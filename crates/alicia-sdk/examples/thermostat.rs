//! A thermostat: hears the rooms, says whether to heat, and takes a target.

use alicia_sdk::{Capability, Error, Message, Service, json};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Error> {
    Service::from_env("thermostat")?
        .version("1.0.0")
        .capability(Capability::new("heat-to"), |cx, celsius: f64| async move {
            cx.set("thermostat/target", &celsius).await?;
            Ok(json!({ "target": celsius }))
        })
        .on("rooms/+/temperature", |cx, room: Message<f64>| async move {
            cx.publish("heating", &(room.payload < 20.0)).await
        })
        .every(Duration::from_secs(5), |cx| async move {
            cx.publish("thermostat/on", &1).await
        })
        .run()
        .await
}
