//! `alicia alerts`: what is wrong, the worst first; and what to do about being told of it.

use std::cmp::Reverse;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use alicia_contract::Period;
use alicia_contract::health::{
    Alert, AlertState, DeliveryState, HeldBack, Maintenance, Matcher, Notification, Phase, Silence,
};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::{EXIT_FAILED, Failure, Outcome};
use crate::show::{self, Table};

/// How many characters at the end of an id are shown: enough to tell alerts apart.
const SHORT_ID_CHARS: usize = 8;

/// How long a test of a channel is waited for.
const TEST_WAIT: Duration = Duration::from_secs(20);

/// Between two looks at a test.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `alicia alerts`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  alicia alerts                                   what fires, the worst first, and what is held back and why
  alicia alerts ack api --note \"on it\"            take note of the alert of a service
  alicia alerts silence service=api --for 2h --comment \"new disk\"
  alicia alerts maintenance start api db --for 30m
  alicia alerts test-channel pager"
)]
pub(crate) struct Alerts {
    /// Also those that are over.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Action {
    /// List alerts; the same as `alicia alerts`.
    List {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
    },
    /// Show one alert in full.
    Show {
        /// The id, its end, or a service with one alert.
        alert: String,
    },
    /// Take note of an alert: it is not repeated and not escalated.
    Ack {
        /// The id, its end, or a service with one alert.
        alert: String,
        /// What you are doing about it.
        #[arg(long)]
        note: Option<String>,
        /// How long it holds, for example 1h. Default: as long as the alert.
        #[arg(long = "for", value_name = "PERIOD")]
        duration: Option<Period>,
    },
    /// Take an acknowledgement back.
    Unack {
        /// The id, its end, or a service with one alert.
        alert: String,
    },
    /// Notify nobody of alerts that fit, for a time.
    Silence {
        /// What must hold, each as `service=api`, `rule!=restarted`, `service=~\"api.*\"`, `severity!~info`.
        #[arg(required = true, value_name = "MATCHER")]
        matchers: Vec<String>,
        /// How long, for example 2h.
        #[arg(long = "for", value_name = "PERIOD", default_value = "1h")]
        duration: Period,
        /// Why.
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// End a silence.
    Unsilence {
        /// The id, or its end.
        silence: String,
    },
    /// List silences.
    Silences {
        /// Also those that are over.
        #[arg(long)]
        all: bool,
    },
    /// List, start and end maintenance windows.
    Maintenance {
        #[command(subcommand)]
        action: Option<MaintenanceAction>,
    },
    /// Send a test through a channel, and wait until it is delivered.
    TestChannel {
        /// The channel.
        channel: String,
    },
    /// List the channels and how they are doing.
    Channels,
    /// List notifications and what became of them.
    Notifications {
        /// Only those to this channel.
        #[arg(long)]
        channel: Option<String>,
        /// How many.
        #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
}

/// What to do about maintenance.
#[derive(Debug, Subcommand)]
enum MaintenanceAction {
    /// List windows; the same as `alicia alerts maintenance`.
    List,
    /// Open a window.
    Start {
        /// Services or groups; default: all.
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
        /// How long, for example 30m.
        #[arg(long = "for", value_name = "PERIOD")]
        duration: Period,
        /// Why.
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// End a window that was opened by hand.
    End {
        /// The id, or its end.
        window: String,
    },
}

/// A page of alerts.
#[derive(Debug, Serialize, Deserialize)]
struct AlertPage {
    alerts: Vec<Alert>,
    #[serde(default)]
    held_back: Vec<HeldBack>,
}

#[derive(Debug, Deserialize)]
struct SilencePage {
    silences: Vec<Silence>,
}

#[derive(Debug, Deserialize)]
struct MaintenancePage {
    maintenance: Vec<Maintenance>,
}

#[derive(Debug, Deserialize)]
struct NotificationPage {
    notifications: Vec<Notification>,
}

#[derive(Debug, Deserialize)]
struct ChannelPage {
    channels: Vec<Channel>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Channel {
    name: String,
    kind: String,
    place: String,
    waiting: u64,
    delivered: u64,
    failed: u64,
    tries: u64,
    trouble: Option<String>,
}

pub(crate) async fn run(global: &Global, alerts: &Alerts) -> Outcome {
    let api = ApiClient::find(global)?;
    match &alerts.action {
        None => list(global, &api, alerts.all).await,
        Some(Action::List { all }) => list(global, &api, *all || alerts.all).await,
        Some(Action::Show { alert }) => {
            let alert = find(&api, alert).await?;
            done(global, &alert, || print_one(&alert))
        }
        Some(Action::Ack {
            alert,
            note,
            duration,
        }) => {
            let id = find(&api, alert).await?.id;
            let body = json!({ "note": note, "duration": duration });
            let path = format!("/api/health/alerts/{}/ack", quoted(&id));
            let alert: Alert = api.post(&path, &body).await?;
            done(global, &alert, || {
                println!(
                    "acknowledged: {}; `alicia alerts unack {}` takes it back",
                    alert.summary,
                    short(&alert.id)
                );
            })
        }
        Some(Action::Unack { alert }) => {
            let id = find(&api, alert).await?.id;
            let path = format!("/api/health/alerts/{}/ack", quoted(&id));
            let alert: Alert = api.delete(&path).await?;
            done(global, &alert, || println!("open again: {}", alert.summary))
        }
        Some(Action::TestChannel { channel }) => test_channel(global, &api, channel).await,
        Some(Action::Channels) => {
            let page: ChannelPage = api.get("/api/health/channels").await?;
            done(global, &page.channels, || print_channels(&page.channels))
        }
        Some(Action::Notifications { channel, limit }) => {
            let channel = channel.as_ref();
            let only =
                channel.map_or_else(String::new, |name| format!("&channel={}", quoted(name)));
            let path = format!("/api/health/notifications?limit={limit}{only}");
            let page: NotificationPage = api.get(&path).await?;
            let found = &page.notifications;
            done(global, found, || print_notifications(found))
        }
        Some(Action::Maintenance { action }) => maintenance(global, &api, action.as_ref()).await,
        Some(other) => silences(global, &api, other).await,
    }
}

/// What fires, for `alicia status`.
pub(crate) async fn firing(api: &ApiClient) -> Outcome<Vec<Alert>> {
    let page: AlertPage = api.get("/api/health/alerts?active=true").await?;
    Ok(page.alerts)
}

async fn list(global: &Global, api: &ApiClient, all: bool) -> Outcome {
    let path = if all {
        "/api/health/alerts"
    } else {
        "/api/health/alerts?active=true"
    };
    let page: AlertPage = api.get(path).await?;
    if global.json {
        show::json(&page.alerts)?;
    } else if page.alerts.is_empty() {
        println!("no alerts");
    } else {
        print(&page.alerts);
    }
    if !global.json {
        print_held_back(&page.held_back);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints alerts, the worst first, those of which nobody takes note before the others.
pub(crate) fn print(alerts: &[Alert]) {
    let now = show::now();
    let mut sorted: Vec<&Alert> = alerts.iter().collect();
    sorted.sort_by(|a, b| rank(b).cmp(&rank(a)).then(b.started.total_cmp(&a.started)));
    let mut table = Table::new(&["ID", "ALERT", "STATE", "SERVICE", "AGE", "SUMMARY", "NOTES"]);
    for alert in sorted {
        let about = alert.instance.as_ref();
        table.row([
            short(&alert.id),
            alert.rule.clone(),
            state(alert),
            about.cloned().unwrap_or_else(|| alert.service.to_string()),
            show::span(alert.ended.unwrap_or(now) - alert.started),
            alert.summary.clone(),
            notes(alert, now),
        ]);
    }
    table.print();
}

/// Firing before over, unmuted before muted, worse before less bad.
fn rank(alert: &Alert) -> (bool, bool, bool, alicia_contract::health::Severity) {
    let fires = alert.state == AlertState::Firing;
    let (open, loud) = (alert.acknowledged.is_none(), alert.muted.is_empty());
    (fires, loud, open, alert.severity)
}

fn state(alert: &Alert) -> String {
    match alert.state {
        AlertState::Firing => alert.severity.as_str().to_owned(),
        AlertState::Resolved => "resolved".to_owned(),
    }
}

/// Why nobody is notified, who takes care, how often.
fn notes(alert: &Alert, now: f64) -> String {
    let mut notes = Vec::new();
    if let Some(by) = &alert.acknowledged {
        let note = by
            .note
            .as_ref()
            .map_or(String::new(), |note| format!(": {note}"));
        let until = by.until.map_or(String::new(), |until| {
            format!(", for {}", show::span(until - now))
        });
        notes.push(format!("ack by {}{note}{until}", by.by));
    }
    notes.extend(alert.muted.iter().map(|mute| mute.why.clone()));
    if alert.count > 1 {
        notes.push(format!("{} times", alert.count));
    }
    notes.join("; ")
}

/// What is held back, by its cause.
fn print_held_back(held_back: &[HeldBack]) {
    if held_back.is_empty() {
        return;
    }
    println!(
        "\nheld back: {} more, each with its reason",
        held_back.len()
    );
    let mut sorted: Vec<&HeldBack> = held_back.iter().collect();
    sorted.sort_by_key(|held| {
        (
            held.cause.clone(),
            Reverse(held.severity),
            held.service.clone(),
        )
    });
    let mut table = Table::new(&["ALERT", "SERVICE", "SUMMARY", "WHY"]);
    for held in sorted {
        table.row([
            held.rule.clone(),
            held.instance
                .clone()
                .unwrap_or_else(|| held.service.to_string()),
            held.summary.clone(),
            held.why.clone(),
        ]);
    }
    table.print();
}

fn print_one(alert: &Alert) {
    let about = alert.instance.as_ref();
    let about = about.cloned().unwrap_or_else(|| alert.service.to_string());
    println!(
        "{} ({}, {}, {about})",
        alert.summary,
        state(alert),
        alert.rule
    );
    let mut rows = vec![
        ("id", alert.id.clone()),
        ("since", show::time(alert.started)),
    ];
    rows.extend(alert.ended.map(|ended| ("until", show::time(ended))));
    if !alert.detail.is_empty() {
        rows.push(("cause", alert.detail.clone()));
    }
    let notes = notes(alert, show::now());
    if !notes.is_empty() {
        rows.push(("notes", notes));
    }
    for (name, value) in &alert.labels {
        rows.push(("label", format!("{name}={value}")));
    }
    rows.extend(alert.suggestion.clone().map(|command| ("try", command)));
    for (name, value) in rows {
        println!("  {name:<7} {value}");
    }
    for line in &alert.last_lines {
        println!("  | {line}");
    }
}

/// The alert that is meant: by its id, the end of its id, or its service where that has one.
async fn find(api: &ApiClient, text: &str) -> Outcome<Alert> {
    let page: AlertPage = api.get("/api/health/alerts?active=true&limit=1000").await?;
    let ends = |alert: &&Alert| alert.id == text || is_end(&alert.id, text);
    let by_id: Vec<&Alert> = page.alerts.iter().filter(ends).collect();
    let by_name: Vec<&Alert> = page
        .alerts
        .iter()
        .filter(|alert| alert.service.as_str() == text || alert.instance.as_deref() == Some(text))
        .collect();
    let found = if by_id.is_empty() { by_name } else { by_id };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            api.get(&format!("/api/health/alerts/{}", quoted(text)))
                .await
        }
        several => {
            let ids: Vec<String> = several
                .iter()
                .map(|alert| format!("{} ({})", short(&alert.id), alert.rule))
                .collect();
            Err(Failure::Usage(format!(
                "{text} means {} alerts: {}; name one by its id",
                several.len(),
                ids.join(", ")
            )))
        }
    }
}

/// Whether a text is the end of an id, and long enough to be meant so.
fn is_end(id: &str, text: &str) -> bool {
    text.len() >= 4
        && id
            .to_ascii_lowercase()
            .ends_with(&text.to_ascii_lowercase())
}

fn short(id: &str) -> String {
    let from = id.len().saturating_sub(SHORT_ID_CHARS);
    id.get(from..).unwrap_or(id).to_owned()
}

async fn silences(global: &Global, api: &ApiClient, action: &Action) -> Outcome {
    match action {
        Action::Silence {
            matchers,
            duration,
            comment,
        } => {
            let body = json!({ "matchers": matchers, "duration": duration, "comment": comment });
            let silence: Silence = api.post("/api/health/silences", &body).await?;
            done(global, &silence, || {
                println!(
                    "silenced until {}; `alicia alerts unsilence {}` ends it",
                    show::time(silence.ends),
                    short(&silence.id)
                );
            })
        }
        Action::Unsilence { silence } => {
            let page: SilencePage = api.get("/api/health/silences").await?;
            let ids = page.silences.iter().filter(|of| of.phase != Phase::Expired);
            let id = meant(ids.map(|silence| silence.id.as_str()), silence)?;
            let path = format!("/api/health/silences/{}", quoted(&id));
            let silence: Silence = api.delete(&path).await?;
            done(global, &silence, || println!("the silence {id} is over"))
        }
        _ => {
            let all = matches!(action, Action::Silences { all: true });
            let page: SilencePage = api.get("/api/health/silences").await?;
            let shown = page.silences.into_iter();
            let shown: Vec<Silence> = shown
                .filter(|silence| all || silence.phase != Phase::Expired)
                .collect();
            done(global, &shown, || print_silences(&shown))
        }
    }
}

fn print_silences(silences: &[Silence]) {
    if silences.is_empty() {
        return println!("no silences");
    }
    let mut table = Table::new(&["ID", "STATE", "MATCHERS", "ENDS", "BY", "COMMENT"]);
    for silence in silences {
        let matchers: Vec<String> = silence.matchers.iter().map(matcher).collect();
        table.row([
            short(&silence.id),
            phase(silence.phase).to_owned(),
            matchers.join(" "),
            show::time(silence.ends),
            silence.by.clone(),
            silence.comment.clone(),
        ]);
    }
    table.print();
}

fn matcher(matcher: &Matcher) -> String {
    let op = serde_json::to_value(matcher.op).unwrap_or_default();
    let op = op.as_str().unwrap_or("=").to_owned();
    format!("{}{op}{:?}", matcher.name, matcher.value)
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Active => "active",
        Phase::Expired => "over",
    }
}

/// The id that is meant by it or by its end.
fn meant<'i>(ids: impl Iterator<Item = &'i str>, text: &str) -> Outcome<String> {
    let found: Vec<&str> = ids.filter(|id| *id == text || is_end(id, text)).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        // The host says that there is none.
        [] => Ok(text.to_owned()),
        several => Err(Failure::Usage(format!(
            "{text} means {} of them: {}; write more of the id",
            several.len(),
            several.join(", ")
        ))),
    }
}

async fn maintenance(
    global: &Global,
    api: &ApiClient,
    action: Option<&MaintenanceAction>,
) -> Outcome {
    match action {
        None | Some(MaintenanceAction::List) => {
            let page: MaintenancePage = api.get("/api/health/maintenance").await?;
            done(global, &page.maintenance, || {
                print_windows(&page.maintenance);
            })
        }
        Some(MaintenanceAction::Start {
            services,
            duration,
            comment,
        }) => {
            let body = json!({ "services": services, "duration": duration, "comment": comment });
            let window: Maintenance = api.post("/api/health/maintenance", &body).await?;
            done(global, &window, || {
                println!(
                    "in maintenance until {}; `alicia alerts maintenance end {}` ends it",
                    window.ends.map_or("?".to_owned(), show::time),
                    short(&window.id)
                );
            })
        }
        Some(MaintenanceAction::End { window }) => {
            let page: MaintenancePage = api.get("/api/health/maintenance").await?;
            let ids = page.maintenance.iter().map(|window| window.id.as_str());
            let id = meant(ids, window)?;
            let path = format!("/api/health/maintenance/{}", quoted(&id));
            let window: Maintenance = api.delete(&path).await?;
            done(global, &window, || println!("the window {id} is over"))
        }
    }
}

fn print_windows(windows: &[Maintenance]) {
    if windows.is_empty() {
        return println!("no maintenance windows");
    }
    let mut table = Table::new(&[
        "ID", "STATE", "SERVICES", "STARTS", "ENDS", "REPEATS", "WHY",
    ]);
    let dash = || "-".to_owned();
    for window in windows {
        let services: Vec<&str> = window.services.iter().map(|name| name.as_str()).collect();
        let services = if services.is_empty() {
            "all".to_owned()
        } else {
            services.join(" ")
        };
        table.row([
            short(&window.id),
            phase(window.phase).to_owned(),
            services,
            window.starts.map_or_else(dash, show::time),
            window.ends.map_or_else(dash, show::time),
            window.cron.clone().unwrap_or_else(dash),
            window.comment.clone(),
        ]);
    }
    table.print();
}

fn print_channels(channels: &[Channel]) {
    if channels.is_empty() {
        return println!("no channels; `health.channels` in the file has them");
    }
    let headings = [
        "CHANNEL",
        "KIND",
        "PLACE",
        "WAITING",
        "DELIVERED",
        "FAILED",
        "TROUBLE",
    ];
    let mut table = Table::new(&headings);
    for channel in channels {
        table.row([
            channel.name.clone(),
            channel.kind.clone(),
            channel.place.clone(),
            channel.waiting.to_string(),
            channel.delivered.to_string(),
            channel.failed.to_string(),
            channel.trouble.clone().unwrap_or_default(),
        ]);
    }
    table.print();
}

fn print_notifications(notifications: &[Notification]) {
    if notifications.is_empty() {
        return println!("no notifications");
    }
    let headings = [
        "WHEN", "CHANNEL", "WHY", "STATE", "TRIES", "SUMMARY", "ERROR",
    ];
    let mut table = Table::new(&headings);
    for notification in notifications {
        table.row([
            show::time(notification.created),
            notification.channel.clone(),
            notification.reason.clone(),
            format!("{:?}", notification.delivery).to_lowercase(),
            notification.attempts.to_string(),
            notification.summary.clone(),
            notification.error.clone().unwrap_or_default(),
        ]);
    }
    table.print();
}

async fn test_channel(global: &Global, api: &ApiClient, channel: &str) -> Outcome {
    let path = format!("/api/health/channels/{}/test", quoted(channel));
    let mut test: Notification = api.post(&path, &json!({})).await?;
    let path = format!("/api/health/notifications/{}", quoted(&test.id));
    let begun = begin();
    while test.delivery == DeliveryState::Waiting && begun.elapsed() < TEST_WAIT {
        tokio::time::sleep(LOOK_EVERY).await;
        test = api.get(&path).await?;
    }
    let error = test.error.clone().unwrap_or_default();
    let text = match test.delivery {
        DeliveryState::Delivered => format!("{channel}: delivered"),
        DeliveryState::Failed => format!("{channel}: not delivered, and not tried again: {error}"),
        DeliveryState::Waiting => {
            format!("{channel}: not delivered yet, it is tried again: {error}")
        }
    };
    let delivered = test.delivery == DeliveryState::Delivered;
    done(global, &test, || println!("{text}"))?;
    Ok(if delivered {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command has no context, and waits as a person does"
)]
fn begin() -> Instant {
    Instant::now()
}

/// Shows what was done: as JSON, or as it is told here.
fn done(global: &Global, value: &impl Serialize, tell: impl FnOnce()) -> Outcome {
    if global.json {
        show::json(value)?;
    } else {
        tell();
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_meant_by_its_end_where_that_is_clear() {
        let ids = ["01ABCDEF-xx11", "01ABCDEF-yy11"];
        let check = |text: &str, expected: Option<&str>| {
            let found = meant(ids.into_iter(), text).ok();
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("xx11", Some("01ABCDEF-xx11"));
        check("XX11", Some("01ABCDEF-xx11"));
        check("01ABCDEF-yy11", Some("01ABCDEF-yy11"));
        check("11", Some("11"));
        check("nosuch", Some("nosuch"));
        let both = ["aaaa-0011", "bbbb-0011"];
        assert!(meant(both.into_iter(), "0011").is_err());
    }
}
