//! {{name}}: greets whoever asks, and tells the bus every ten seconds that it is there.
//! `Greet` is the input: what does not fit is refused before `greet` is called.
use alicia_sdk::{Capability, Error, JsonSchema, Service};

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(crate = "alicia_sdk::schemars")]
struct Greet {
    name: String,
}

fn greet(asked: Greet) -> Result<String, Error> {
    Ok(format!("Hello, {}!", asked.name))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Service::from_env("{{name}}")?
        .version("{{version}}")
        .capability(Capability::new("greet"), |_, it| async { greet(it) })
        .every(std::time::Duration::from_secs(10), |cx| async move {
            cx.publish("{{name}}/here", cx.instance()).await
        })
        .run()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        let name = "Ada".to_owned();
        assert_eq!(greet(Greet { name }).expect("greets"), "Hello, Ada!");
    }
}
