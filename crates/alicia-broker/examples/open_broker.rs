//! A broker that lets everybody in and refuses one filter: what interoperability suites expect.
//!
//! `cargo run -p alicia-broker --example open_broker -- 127.0.0.1:1883 127.0.0.1:8083`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use alicia_broker::{
    Authority, Engine, EngineOptions, Identity, Limits, Login, Observer, Reason, Refusal, Refused,
    Subject,
};

/// The suite checks with this filter that a subscription can be refused. Its own MQTT 5 client
/// knows no other code for it than 0x80, unspecified.
const REFUSED_FILTER: &str = "test/nosubscribe";
/// The keep-alive that the suite expects a server to impose.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(60);

struct Open;

struct Anybody(Identity);

impl Authority for Open {
    fn authenticate(&self, _: &Login<'_>) -> Result<Arc<dyn Subject>, Refusal> {
        Ok(Arc::new(Anybody(Identity::named("anybody"))))
    }
}

impl Subject for Anybody {
    fn identity(&self) -> &Identity {
        &self.0
    }

    fn may_publish(&self, _: &str, _: bool) -> Result<(), Refusal> {
        Ok(())
    }

    fn may_subscribe(&self, filter: &str) -> Result<(), Refusal> {
        match filter {
            REFUSED_FILTER => Err(Refusal::new(Reason::Undisclosed, "by request of the suite")),
            _ => Ok(()),
        }
    }

    fn check_payload(&self, _: &str, _: &[u8]) -> Result<(), Refusal> {
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
        limits: Limits {
            keep_alive_max: KEEP_ALIVE_MAX,
            ..Limits::default()
        },
        store: None,
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
