//! A headless Chromium, driven over the WebDriver protocol (W3C WebDriver level 2) by Debian's chromedriver.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use alicia_testkit::until;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser window of its own. It ends when it is dropped.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser; `None`, with a plain message, where Chromium is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let started = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn();
        let mut driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                let required = std::env::var_os("ALICIA_REQUIRE_ALL").is_some();
                assert!(!required, "chromedriver cannot be started: {error}");
                eprintln!(
                    "skipped: chromedriver is not installed (Debian: chromium, chromium-driver)"
                );
                return None;
            }
        };
        let port = port_of(&mut driver);
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let base = format!("http://127.0.0.1:{port}/session");
        let answer = http
            .post(&base)
            .json(&wanted)
            .send()
            .await
            .expect("chromedriver answers");
        let answer: Value = answer.json().await.expect("JSON");
        let id = answer["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        let session = format!("{base}/{id}");
        Some(Self {
            driver,
            session,
            http,
            _profile: profile,
        })
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self
            .http
            .post(format!("{}{path}", self.session))
            .json(&body)
            .send()
            .await;
        let answer: Value = answer
            .expect("chromedriver answers")
            .json()
            .await
            .expect("JSON");
        answer["value"].clone()
    }

    /// Goes to an address.
    pub(crate) async fn open(&self, url: &str) {
        let answer = self.post("/url", json!({ "url": url })).await;
        assert!(answer.is_null(), "{url}: {answer}");
    }

    /// Runs a script in the page.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] }))
            .await
    }

    /// The title of the page.
    pub(crate) async fn title(&self) -> String {
        self.script("return document.title")
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What a person reads on the page.
    pub(crate) async fn text(&self) -> String {
        self.script("return document.body.innerText")
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The text of what an XPath finds.
    pub(crate) async fn text_of(&self, xpath: &str) -> String {
        let script = format!(
            "const found = document.evaluate({xpath:?}, document, null, 9, null).singleNodeValue; \
             return found ? found.innerText : ''"
        );
        self.script(&script)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until the page shows a text.
    pub(crate) async fn shows(&self, text: &str) {
        let seen = std::cell::RefCell::new(String::new());
        until(&format!("the page shows {text:?}"), || async {
            seen.replace(self.text().await);
            seen.borrow().contains(text)
        })
        .await;
    }

    /// Prefers `light` or `dark`.
    pub(crate) async fn set_theme(&self, theme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
        let parameters =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.post("/goog/cdp/execute", parameters).await;
    }

    /// The least contrast between a text and what it stands on, as WCAG 2.2 defines it.
    pub(crate) async fn least_contrast(&self) -> f64 {
        self.script(include_str!("contrast.js"))
            .await
            .as_f64()
            .expect("a number")
    }

    /// What somebody who does not see the page would miss.
    pub(crate) async fn inaccessible(&self) -> Vec<String> {
        let found = self.script(include_str!("accessibility.js")).await;
        let found = found.as_array().expect("a list").iter();
        found
            .map(|what| what.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// What the console complained about: errors and refused resources.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({ "type": "browser" })).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// chromedriver says which port it took.
fn port_of(driver: &mut Child) -> u16 {
    let output = BufReader::new(driver.stdout.take().expect("piped"));
    for line in output.lines() {
        let line = line.expect("chromedriver writes text");
        if let Some((_, rest)) = line.split_once("started successfully on port ") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().expect("a port");
        }
    }
    panic!("chromedriver did not say its port");
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The session ends first, so that no browser stays behind.
        let session = self.session.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let client = reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client");
            drop(
                runtime
                    .expect("a runtime")
                    .block_on(client.delete(session).send()),
            );
        });
        drop(ended.join());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
