//! {{name}}: greets whoever asks, and tells the bus every ten seconds that it is there.
use alicia_sdk::{Context, Error, Service};
use std::time::Duration;

#[derive(serde::Deserialize)]
struct Greet {
    name: Option<String>,
}

async fn greet(cx: Context, asked: Greet) -> Result<String, Error> {
    cx.count("greetings");
    Ok(greeting(&asked))
}

fn greeting(asked: &Greet) -> String {
    format!("Hello, {}!", asked.name.as_deref().unwrap_or("world"))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let service = Service::from_env("{{name}}")?.version("{{version}}").command("greet", greet);
    service.every(Duration::from_secs(10), |cx| async move { cx.publish("{{name}}/here", &true).await }).run().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        assert_eq!(greeting(&Greet { name: Some("Ada".to_owned()) }), "Hello, Ada!");
        assert_eq!(greeting(&Greet { name: None }), "Hello, world!");
    }
}
