//! Checks a broker that lets everybody do everything: `conformance mqtt://127.0.0.1:1883`.

use alicia_bus::{BusAddress, Options, conformance};
use alicia_contract::Prefix;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = std::env::args().nth(1).unwrap_or_default();
    let address: BusAddress = text.parse()?;
    let broker = |source: &str| Options::at(address.clone(), source, Prefix::default());
    conformance::everything(&broker).await;
    #[expect(clippy::print_stdout, reason = "the result is for a person")]
    {
        println!("{address} does everything that a broker must");
    }
    Ok(())
}
