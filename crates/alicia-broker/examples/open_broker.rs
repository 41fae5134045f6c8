//! A broker that lets everybody in and refuses one filter: what interoperability suites expect.
//!
//! `cargo run -p alicia-broker --example open_broker -- 127.0.0.1:1883 127.0.0.1:8083`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use alicia_broker::{
    Authority, Engine, EngineOptions, Identity, Login, Observer, Reason, Refusal, Refused,
};

/// The suite checks with this filter that a subscription can be refused.
const REFUSED_FILTER: &str = "test/nosubscribe";

struct Open;

impl Authority for Open {
    fn authenticate(&self, _: &Login<'_>) -> Result<Identity, Refusal> {
        Ok(Identity::named("anybody"))
    }

    fn may_publish(&self, _: &Identity, _: &str, _: bool) -> Result<(), Refusal> {
        Ok(())
    }

    fn may_subscribe(&self, _: &Identity, filter: &str) -> Result<(), Refusal> {
        match filter {
            REFUSED_FILTER => Err(Refusal::new(
                Reason::NotAuthorized,
                "by request of the suite",
            )),
            _ => Ok(()),
        }
    }

    fn check_payload(&self, _: &Identity, _: &str, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Observer for Open {
    fn refused(&self, refused: &Refused) {
        tracing::info!("refused: {refused:?}");
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example program")]
async fn main() -> Result<(), Box<dyn Error>> {
    let addresses: Vec<SocketAddr> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let options = EngineOptions {
        tcp: Some(
            addresses
                .first()
                .copied()
                .unwrap_or(([127, 0, 0, 1], 1883).into()),
        ),
        websocket: addresses.get(1).copied(),
        ..EngineOptions::default()
    };
    let engine = Engine::start(options, Arc::new(Open), Arc::new(Open)).await?;
    println!(
        "mqtt {:?}, websocket {:?}",
        engine.tcp_address(),
        engine.websocket_address()
    );
    tokio::signal::ctrl_c().await?;
    println!("{:#?}", engine.stats().await);
    engine.stop().await;
    Ok(())
}
