//! The page, in a real browser: headless Chromium, driven over WebDriver.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails with what it saw, and says plainly that it skips"
)]

#[path = "support/browser.rs"]
mod browser;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::House;
use alicia_testkit::until;
use browser::Browser;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const FILE: &str = r#"
name: browser-test
services:
  counter:
    command: [sh, -c, 'i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.2; done']
  hostile:
    command: [sh, -c, 'echo "<script>document.title=1</script>"; exec sleep 1000']
"#;

#[tokio::test]
async fn the_page_shows_the_fleet_and_follows_it() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let house = House::start(ALICIA, FILE).await;
    let before = house.reaches("counter-1", InstanceState::Running).await;

    browser.open(&format!("{}/", house.api())).await;
    browser.shows("Sign in with a key").await;
    assert_eq!(browser.inaccessible().await, [""; 0]);

    let (status, link) = house.post("/api/keys/link", &serde_json::json!({})).await;
    assert_eq!(status, 200, "{link}");
    let path = link["path"].as_str().expect("a path");
    browser.open(&format!("{}{path}", house.api())).await;
    browser.shows("Everything is all right: 2 running.").await;
    browser.shows("line ").await;
    browser.shows("<script>document.title=1</script>").await;
    assert_eq!(browser.inaccessible().await, [""; 0]);
    assert!(browser.title().await.contains("browser-test"));

    // Without a reload: the new process, the restart and the alert come by themselves.
    let pid = before.pid.expect("it runs");
    let killed = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).expect("it is ours");
    browser.shows("after killed by SIGKILL").await;
    browser.shows("counter-1").await;
    until("the page shows the restart", || async {
        let row = browser.text_of("//tr[.//a[text()='counter-1']]").await;
        row.split_whitespace().any(|word| word == "1")
    })
    .await;

    browser
        .open(&format!("{}/services/counter", house.api()))
        .await;
    browser.shows("Output").await;
    browser.shows("line ").await;
    assert_eq!(browser.inaccessible().await, [""; 0]);
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // The host goes away: the page says so.
    let mut house = house;
    house.kill_host();
    browser.shows("The connection is lost").await;
}

const BEFORE: &str = r#"
services:
  api:
    command: [sleep, '1000']
    update: {strategy: rolling, min_healthy: 100ms, deadline: 20s}
  limited:
    command: [sh, -c, 'echo slow down; exit 75']
    on_exit: {park_for: 10m}
"#;

const AFTER: &str = r#"
services:
  api:
    command: [sh, -c, 'echo cannot read its settings; exit 3']
    update: {strategy: rolling, min_healthy: 100ms, deadline: 20s}
  limited:
    command: [sh, -c, 'echo slow down; exit 75']
    on_exit: {park_for: 10m}
"#;

#[tokio::test]
async fn a_failed_change_and_a_parked_service_are_told_and_the_place_is_kept() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut house = House::start(ALICIA, BEFORE).await;
    house.reaches("api-1", InstanceState::Running).await;
    house.reaches("limited-1", InstanceState::Parked).await;
    let (_, link) = house.post("/api/keys/link", &serde_json::json!({})).await;
    let path = link["path"].as_str().expect("a path");
    browser.open(&format!("{}{path}", house.api())).await;
    browser.shows("1 running, 1 parked.").await;
    browser.shows("next start in").await;

    // A narrow window, the table moved aside, a link with the focus: all of it stays while the page follows the fleet.
    let moved = browser
        .script(
            "const table = document.getElementById('fleet-table');
             table.style.width = '200px'; table.scrollLeft = 60;
             document.querySelector('#fleet-table a[href=\"/services/limited\"]').focus();
             window.before = document.querySelector('#live').firstElementChild;
             return table.scrollLeft",
        )
        .await;
    assert!(moved.as_f64().is_some_and(|moved| moved > 0.0), "{moved}");
    std::fs::write(house.path().join("alicia.yaml"), AFTER).expect("the file is ours");
    house
        .says(&["deploy", "--reason", "a slip"])
        .exits(1)
        .tells(&["api"]);
    browser.shows("a slip").await;
    browser.shows("reverted").await;
    browser.shows("cannot read its settings").await;
    let place = browser
        .script(
            "return [!document.body.contains(window.before), document.activeElement.getAttribute('href')]",
        )
        .await;
    assert_eq!(place, serde_json::json!([true, "/services/limited"]));
    assert_eq!(browser.inaccessible().await, [""; 0]);
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // A host that starts anew still has it, though nothing of it happens any more.
    house.kill_host();
    house.start_host().await;
    let (_, link) = house.post("/api/keys/link", &serde_json::json!({})).await;
    let path = link["path"].as_str().expect("a path");
    browser.open(&format!("{}{path}", house.api())).await;
    browser.shows("1 running, 1 parked.").await;
    browser.shows("a slip").await;
    browser.shows("reverted").await;
}

#[tokio::test]
async fn both_themes_have_readable_text() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let house = House::start(ALICIA, FILE).await;
    house.reaches("counter-1", InstanceState::Running).await;
    for theme in ["light", "dark"] {
        browser.set_theme(theme).await;
        let (_, link) = house.post("/api/keys/link", &serde_json::json!({})).await;
        let path = link["path"].as_str().expect("a path");
        browser.open(&format!("{}{path}", house.api())).await;
        browser.shows("Everything is all right").await;
        let contrast = browser.least_contrast().await;
        // WCAG 2.2, success criterion 1.4.3: 4.5 to 1 for text.
        assert!(
            contrast >= 4.5,
            "{theme}: the least contrast of text is {contrast:.2}"
        );
    }
}
