//! The picture as HTML. Everything that comes from services is text: maud escapes it.

use alicia_contract::health::{Alert, AlertState, HealthState, ServiceHealth, Severity};
use alicia_contract::orchestrator::{FleetStatus, InstanceState, InstanceStatus, ServiceStatus};
use alicia_keeper::logs::{Line, Stream};
use maud::{DOCTYPE, Markup, html};

mod deployment;
mod instance;

use crate::picture::Picture;

/// The frame of every page.
pub(crate) fn page(title: &str, stream: Option<&str>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Alicia" }
                link rel="stylesheet" href="/assets/page.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                script src="/assets/page.js" defer {}
            }
            body data-stream=[stream] {
                a.skip href="#main" { "Skip to content" }
                (body)
            }
        }
    }
}

/// The head of a page for somebody who is signed in.
pub(crate) fn header(fleet_name: &str, user: &str) -> Markup {
    html! {
        header {
            a.brand href="/" { "Alicia" } " "
            span.fleet { (fleet_name) }
            nav aria-label="Pages" {
                a href="/" { "Fleet" } " "
                a href="/docs" { "REST" }
            }
            form method="post" action="/sign-out" {
                span.user { (user) } " "
                button type="submit" { "Sign out" }
            }
        }
    }
}

/// The overview: is everything all right, what is wrong, and every instance.
pub(crate) fn overview(picture: &Picture, last_lines: &[LastLine], now: f64) -> Markup {
    html! {
        (verdict(picture))
        @if let Some(deployment) = &picture.deployment { (deployment::section(deployment, now)) }
        (alerts(picture, now))
        (fleet(picture, last_lines, now))
    }
}

/// One sentence: is everything all right?
fn verdict(picture: &Picture) -> Markup {
    let firing = picture.firing();
    let worst = firing.iter().map(|alert| alert.severity).max();
    let (class, text) = match (picture.is_connected, &picture.fleet, worst) {
        (false, ..) => (
            "bad",
            "No connection to the bus. What you see may be old.".to_owned(),
        ),
        (_, None, _) => ("busy", "Waiting for news of the fleet…".to_owned()),
        (_, Some(fleet), Some(severity)) => {
            let class = if severity == Severity::Critical {
                "bad"
            } else {
                "warn"
            };
            let count = firing.len();
            (
                class,
                format!(
                    "{count} {} firing: {}.",
                    if count == 1 { "alert is" } else { "alerts are" },
                    counts(fleet)
                ),
            )
        }
        (_, Some(fleet), None) => verdict_of_fleet(fleet),
    };
    html! {
        p.verdict.(class) data-verdict { (text) }
    }
}

fn verdict_of_fleet(fleet: &FleetStatus) -> (&'static str, String) {
    let any = |wanted: &[InstanceState]| {
        let mut instances = instances_of(fleet);
        instances.any(|instance| wanted.contains(&instance.state))
    };
    let asks = instances_of(fleet).any(|instance| instance.attention.is_some());
    let counts = counts(fleet);
    if any(&[InstanceState::Failed]) {
        ("bad", format!("{counts}."))
    } else if asks || any(&[InstanceState::Paused, InstanceState::Parked]) {
        ("warn", format!("{counts}."))
    } else if any(&ON_THEIR_WAY) {
        ("busy", format!("{counts}."))
    } else {
        ("good", format!("Everything is all right: {counts}."))
    }
}

/// States that do not last.
const ON_THEIR_WAY: [InstanceState; 4] = [
    InstanceState::Waiting,
    InstanceState::Starting,
    InstanceState::Backoff,
    InstanceState::Stopping,
];

fn instances_of(fleet: &FleetStatus) -> impl Iterator<Item = &InstanceStatus> {
    let services = fleet.services.iter();
    services.flat_map(|service| &service.instances)
}

/// How many instances are where: `3 running, 1 parked`.
fn counts(fleet: &FleetStatus) -> String {
    let count = |wanted: &[InstanceState]| {
        let instances = instances_of(fleet);
        instances
            .filter(|instance| wanted.contains(&instance.state))
            .count()
    };
    let parts = [
        (count(&[InstanceState::Failed]), "failed"),
        (count(&[InstanceState::Running]), "running"),
        (count(&ON_THEIR_WAY), "on their way"),
        (count(&[InstanceState::Paused]), "paused"),
        (count(&[InstanceState::Parked]), "parked"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, word)| *count > 0 || *word == "running")
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    parts.join(", ")
}

fn alerts(picture: &Picture, now: f64) -> Markup {
    html! {
        section aria-labelledby="alerts-title" {
            h2 id="alerts-title" { "Alerts" }
            @if picture.firing().is_empty() && picture.resolved.is_empty() {
                p.quiet { "None." }
            } @else {
                @let firing = worst_first(picture.firing());
                ul.alerts { @for alert in &firing { (alert_item(alert, now)) } }
                @if let Some(first) = firing.first() { (what_to_do(first)) }
                (over(&picture.resolved, now))
            }
            (held_back(picture))
        }
    }
}

/// Those that are to be looked at first.
fn worst_first(alerts: &[Alert]) -> Vec<&Alert> {
    let mut sorted: Vec<&Alert> = alerts.iter().collect();
    sorted.sort_by_key(|alert| {
        let is_told = alert.muted.is_empty() && alert.acknowledged.is_none();
        std::cmp::Reverse((is_told, alert.severity))
    });
    sorted
}

/// `1 more is`, `2 more are`.
fn more(count: usize) -> String {
    match count {
        1 => "1 more is".to_owned(),
        _ => format!("{count} more are"),
    }
}

/// What is over, folded away.
fn over(resolved: &[Alert], now: f64) -> Markup {
    html! {
        @if !resolved.is_empty() {
            details id="over" {
                summary id="over-summary" { (more(resolved.len())) " over" }
                ul.alerts { @for alert in resolved { (alert_item(alert, now)) } }
            }
        }
    }
}

/// What a person can do about alerts.
fn what_to_do(alert: &Alert) -> Markup {
    html! {
        p.quiet {
            code { "alicia explain " (alert.service) } " tells how it came to that, "
            code { "alicia alerts ack " (alert.service) " --note 'on it'" } " takes note of it, "
            code { "alicia alerts silence service=" (alert.service) " --for 1h" } " notifies nobody."
        }
    }
}

fn alert_item(alert: &Alert, now: f64) -> Markup {
    let severity = match alert.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let is_over = alert.state == AlertState::Resolved;
    html! {
        li class={ "alert " (severity) @if is_over { " over" } } {
            span.badge { @if is_over { "resolved" } @else { (severity) } } " "
            a href={ "/services/" (alert.service) } { (alert.instance.as_deref().unwrap_or(alert.service.as_str())) } " "
            strong { (alert.summary) } " "
            span.quiet {
                (ago(now - alert.started))
                @if alert.count > 1 { ", " (alert.count) " times" }
            }
            @if !alert.detail.is_empty() { p { (words(&alert.detail)) } }
            @if let Some(by) = &alert.acknowledged {
                p.quiet {
                    "Acknowledged by " (by.by)
                    @if let Some(note) = &by.note { ": " (note) }
                }
            }
            @if let Some(cause) = &alert.cause {
                p.quiet { "The cause is " a href={ "/services/" (cause) } { (cause) } "." }
            }
            @for mute in &alert.muted { p.quiet { "Nobody is notified: " (mute.why) } }
            @if let Some(advice) = alert.suggestion.as_ref().filter(|_| !is_over) { p { (self::advice(advice)) } }
        }
    }
}

/// What to do: a command, or words with commands in backticks.
fn advice(text: &str) -> Markup {
    html! {
        @if text.contains('`') { (words(text)) }
        @else { "Try " code { (text) } }
    }
}

/// Words with names and commands in backticks.
fn words(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// What is no alert because something else is its cause, folded away: how many, and each with its reason.
fn held_back(picture: &Picture) -> Markup {
    let held_back = picture.held_back();
    html! {
        @if !held_back.is_empty() {
            details id="held-back" {
                summary id="held-back-summary" { (more(held_back.len())) " held back because of what is the cause" }
                ul {
                    @for held in held_back {
                        li {
                            a href={ "/services/" (held.service) } {
                                (held.instance.as_deref().unwrap_or(held.service.as_str()))
                            }
                            " " (held.summary) ": " (held.why)
                        }
                    }
                }
            }
        }
    }
}

/// The last line of output of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastLine {
    pub(crate) service: String,
    pub(crate) slot: u32,
    pub(crate) text: String,
}

fn fleet(picture: &Picture, last_lines: &[LastLine], now: f64) -> Markup {
    let Some(fleet) = &picture.fleet else {
        return html! {};
    };
    html! {
        section aria-labelledby="fleet-title" {
            h2 id="fleet-title" { "Fleet" }
            @if fleet.services.is_empty() {
                p.quiet { "The file has no services. " code { "alicia new service NAME --lang python" } " writes one." }
            } @else {
                div.scroll id="fleet-table" role="region" aria-labelledby="fleet-title" tabindex="0" {
                    table {
                        thead { tr {
                            th scope="col" { "Instance" } th scope="col" { "State" } th scope="col" { "Health" }
                            th.number scope="col" { "Since" } th.number scope="col" { "Restarts" }
                            th.number scope="col" { "CPU" } th.number scope="col" { "Memory" }
                            th scope="col" { "Last line" }
                        } }
                        tbody {
                            @for service in &fleet.services {
                                @if service.instances.is_empty() { (instance::none(service)) }
                                @for instance in &service.instances {
                                    (row(picture, service, instance, last_lines, now))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn row(
    picture: &Picture,
    service: &ServiceStatus,
    instance: &InstanceStatus,
    last_lines: &[LastLine],
    now: f64,
) -> Markup {
    let line = last_lines
        .iter()
        .find(|line| line.service == service.service.as_str() && line.slot == instance.slot);
    let health = health_of(picture, service).map_or(HealthState::Unknown, |health| health.state);
    html! {
        tr {
            th scope="row" { a href={ "/services/" (service.service) } { (service.service) "-" (instance.slot) } }
            td.state { (state(instance.state)) (instance::remarks(instance, now)) }
            td { (health_mark(health)) }
            td.number { (span(now - instance.since)) }
            td.number { (instance.restarts) }
            td.number { (cpu(instance.cpu)) }
            td.number { (memory(instance.memory_bytes)) }
            td.line { @if let Some(line) = line { (plain(&line.text)) } }
        }
    }
}

fn health_of<'p>(picture: &'p Picture, service: &ServiceStatus) -> Option<&'p ServiceHealth> {
    let health = picture.health.as_ref()?;
    health
        .services
        .iter()
        .find(|health| health.service == service.service)
}

/// A service's own page: its instances, its checks, its output.
pub(crate) fn service(picture: &Picture, name: &str, lines: &[(u32, Line)], now: f64) -> Markup {
    let found = picture.fleet.as_ref().and_then(|fleet| {
        fleet
            .services
            .iter()
            .find(|service| service.service.as_str() == name)
    });
    let Some(found) = found else {
        return html! { p.verdict.busy { "There is no news of " code { (name) } "." } };
    };
    let about: Vec<Alert> = picture
        .firing()
        .iter()
        .filter(|alert| alert.service == found.service)
        .cloned()
        .collect();
    html! {
        @if !picture.is_connected { p.verdict.bad data-verdict { "No connection to the bus. What you see may be old." } }
        @if let Some(text) = &found.description { p { (text) } }
        @if let Some(first) = about.first() {
            section aria-labelledby="alerts-title" {
                h2 id="alerts-title" { "Alerts" }
                ul.alerts { @for alert in &about { (alert_item(alert, now)) } }
                (what_to_do(first))
            }
        }
        (instances(found, now))
        (instance::particulars(found, now))
        @if let Some(health) = health_of(picture, found) { (checks(health, now)) }
        (output(lines))
    }
}

fn instances(service: &ServiceStatus, now: f64) -> Markup {
    html! {
        section aria-labelledby="instances-title" {
            h2 id="instances-title" { "Instances" }
            div.scroll id="instances-table" role="region" aria-labelledby="instances-title" tabindex="0" {
                table {
                    thead { tr {
                        th scope="col" { "Instance" } th scope="col" { "State" } th.number scope="col" { "Since" }
                        th.number scope="col" { "Pid" } th.number scope="col" { "Epoch" }
                        th.number scope="col" { "Restarts" } th.number scope="col" { "CPU" }
                        th.number scope="col" { "Memory" } th scope="col" { "Last exit" }
                    } }
                    tbody { @for instance in &service.instances { tr {
                        th scope="row" { (service.service) "-" (instance.slot) }
                        td.state { (state(instance.state)) (instance::remarks(instance, now)) }
                        td.number { (span(now - instance.since)) }
                        td.number { @match instance.pid { Some(pid) => (pid), None => "–" } }
                        td.number { (instance.epoch) }
                        td.number { (instance.restarts) }
                        td.number { (cpu(instance.cpu)) }
                        td.number { (memory(instance.memory_bytes)) }
                        td.state { @if let Some(exit) = &instance.exit { (instance::end(exit)) ", " (ago(now - exit.at)) } }
                    } } }
                }
            }
        }
    }
}

fn checks(health: &ServiceHealth, now: f64) -> Markup {
    html! {
        section aria-labelledby="checks-title" {
            h2 id="checks-title" { "Health" }
            p { (health_mark(health.state)) " " (health.reason) @if health.flapping { " · flapping" } }
            ul.checks { @for check in &health.checks { li {
                (health_mark(check.state)) " " strong { (check.name) } " "
                @if let Some(instance) = &check.instance { span.quiet { (instance) } " " }
                (check.detail) " " span.quiet { (ago(now - check.at)) }
            } } }
        }
    }
}

fn output(lines: &[(u32, Line)]) -> Markup {
    html! {
        section aria-labelledby="output-title" {
            h2 id="output-title" { "Output" }
            @if lines.is_empty() { p.quiet { "Nothing yet." } }
            @else {
                div.output id="output-lines" role="log" aria-labelledby="output-title" tabindex="0" {
                    @for (slot, line) in lines {
                        div class=(stream_class(line.stream)) {
                            time { (clock_time(line.unix_us)) } " " span.slot { (slot) } " " (plain(&line.text))
                        }
                    }
                }
            }
        }
    }
}

fn stream_class(stream: Stream) -> &'static str {
    match stream {
        Stream::Stderr => "stderr",
        _ => "stdout",
    }
}

/// The page for somebody who is not signed in.
pub(crate) fn sign_in(refused: Option<&str>) -> Markup {
    html! {
        main id="main" .narrow {
            h1 { "Alicia" }
            p { "Sign in with a key, or run " code { "alicia open" } " for a link that signs you in." }
            @if let Some(why) = refused { p.verdict.bad role="alert" { (why) } }
            form method="post" action="/sign-in" {
                label for="key" { "Key" }
                input id="key" name="key" type="password" autocomplete="current-password" required
                    placeholder="alk_…";
                button type="submit" { "Sign in" }
            }
        }
    }
}

fn state(state: InstanceState) -> Markup {
    let (class, text) = match state {
        InstanceState::Running => ("good", "running"),
        InstanceState::Completed => ("good", "completed"),
        InstanceState::Starting => ("busy", "starting"),
        InstanceState::Waiting => ("busy", "waiting"),
        InstanceState::Stopping => ("busy", "stopping"),
        InstanceState::Backoff => ("warn", "backoff"),
        InstanceState::Failed => ("bad", "failed"),
        InstanceState::Stopped => ("off", "stopped"),
        InstanceState::Parked => ("warn", "parked"),
        InstanceState::Paused => ("warn", "paused"),
    };
    html! { span class={ "mark " (class) } { (text) } }
}

fn health_mark(state: HealthState) -> Markup {
    let (class, text) = match state {
        HealthState::Healthy => ("good", "healthy"),
        HealthState::Starting => ("busy", "starting"),
        HealthState::Degraded => ("warn", "degraded"),
        HealthState::Unhealthy => ("bad", "unhealthy"),
        HealthState::Down => ("bad", "down"),
        HealthState::Unknown => ("off", "unknown"),
    };
    html! { span class={ "mark " (class) } { (text) } }
}

fn cpu(cores: Option<f64>) -> String {
    cores.map_or_else(|| "–".to_owned(), |cores| format!("{:.1} %", cores * 100.0))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "one digit after the point is shown"
)]
fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(
        || "–".to_owned(),
        |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    )
}

/// A line without the escape sequences with which programs colour their output (ECMA-48, section 5.4), and without
/// other control characters.
fn plain(line: &str) -> String {
    let mut rest = line.chars();
    let mut text = String::with_capacity(line.len());
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            if rest.as_str().starts_with('[') {
                // Parameters, then one final byte from 0x40 to 0x7E.
                rest.by_ref()
                    .skip(1)
                    .find(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

/// A length of time in its two largest units.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole seconds, not negative"
)]
fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (
        whole / 86_400,
        whole / 3_600 % 24,
        whole / 60 % 60,
        whole % 60,
    ) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

fn ago(seconds: f64) -> String {
    format!("{} ago", span(seconds))
}

/// `14:03:07`, in the machine's time zone.
fn clock_time(unix_us: u64) -> String {
    let us = i64::try_from(unix_us).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(us) {
        Ok(at) => at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%H:%M:%S")
            .to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_is_text() {
        let line = Line {
            unix_us: 0,
            stream: Stream::Stdout,
            text: "<script>alert(1)</script>".to_owned(),
            kind: alicia_keeper::logs::LineKind::Full,
        };
        let html = output(&[(1, line)]).into_string();
        assert!(
            html.contains("&lt;script&gt;") && !html.contains("<script>"),
            "{html}"
        );
    }

    #[test]
    fn colours_of_programs_are_left_out() {
        let check = |line: &str, text: &str| assert_eq!(plain(line), text);
        check("plain", "plain");
        check(
            "\u{1b}[2m12:00\u{1b}[0m \u{1b}[1;31mred\u{1b}[0m",
            "12:00 red",
        );
        check("bell\u{7}, lone \u{1b} and \u{1b}[", "bell, lone  and ");
    }

    #[test]
    fn advice_shows_commands_as_such() {
        let check = |text: &str, html: &str| assert_eq!(advice(text).into_string(), html);
        check("alicia logs api", "Try <code>alicia logs api</code>");
        check(
            "`alicia explain api` says why; <b>",
            "<code>alicia explain api</code> says why; &lt;b&gt;",
        );
    }

    #[test]
    fn old_news_is_said_to_be_old() {
        let html = overview(&Picture::default(), &[], 0.0).into_string();
        assert!(html.contains("may be old"), "{html}");
    }
}
