//! The public page: how the services are, for people who have no key. Off by default; it shows what the file names, and
//! nothing of causes, instances or addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use alicia_contract::health::HealthState;
use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::history::ledger::Spans;
use crate::history::uptime::Uptime;
use crate::reports::time;

/// The days in the strip of a service.
pub(crate) const DAYS: usize = 90;

/// How often a browser asks again, in seconds.
const REFRESH_S: u32 = 60;

/// The style of the page and of reports: the colours are told apart by shape and word as well, and reach a contrast of
/// 4.5 to 1 for text and 3 to 1 for shapes in both themes (WCAG 2.2, 1.4.3 and 1.4.11).
pub(crate) const STYLE: &str = include_str!("status_page/style.css");

/// The public status page, without a key, at `/api/health/status`. Off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StatusPage {
    /// Whether there is one. Anybody who reaches the listener can read it.
    pub enabled: bool,
    /// Its title.
    pub title: String,
    /// The services that it shows, in this order. None: every service of the file.
    pub services: Vec<ServiceName>,
}

impl Default for StatusPage {
    fn default() -> Self {
        Self {
            enabled: false,
            title: "Status".to_owned(),
            services: Vec::new(),
        }
    }
}

/// One service on the page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) service: ServiceName,
    pub(crate) state: HealthState,
    pub(crate) since: UnixSeconds,
    pub(crate) uptime: Vec<Uptime>,
    /// The days, oldest first.
    pub(crate) days: Vec<Spans>,
}

/// What the page says of a state.
pub(crate) fn word(state: HealthState) -> &'static str {
    match state {
        HealthState::Healthy => "works",
        HealthState::Starting => "starting",
        HealthState::Degraded => "degraded",
        HealthState::Unhealthy => "does not work",
        HealthState::Down => "down",
        HealthState::Unknown => "unknown",
    }
}

/// The page.
pub(crate) fn page(config: &StatusPage, lines: &[Line], now: UnixSeconds) -> String {
    let bad = lines.iter().filter(|line| is_bad(line.state)).count();
    let is = |state: HealthState| lines.iter().filter(|line| line.state == state).count();
    let (unsure, starting) = (is(HealthState::Unknown), is(HealthState::Starting));
    let all = match (bad, unsure) {
        _ if lines.is_empty() => "No service is shown.".to_owned(),
        (0, 0) if starting == 1 => "One service is starting.".to_owned(),
        (0, 0) if starting > 1 => format!("{starting} services are starting."),
        (0, 0) => "All services work.".to_owned(),
        (0, 1) => "Of one service it is not known whether it works.".to_owned(),
        (0, unsure) => format!("Of {unsure} services it is not known whether they work."),
        (1, _) => "One service does not work as it should.".to_owned(),
        (bad, _) => format!("{bad} services do not work as they should."),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_S);
                title { (config.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (config.title) }
                    p.summary role="status" { (all) }
                    @for line in lines { (section(line)) }
                    footer { p { "As of " (time(now)) ". This page asks again every minute." } }
                }
            }
        }
    };
    page.into_string()
}

fn section(line: &Line) -> Markup {
    let Line {
        service,
        state,
        since,
        uptime,
        days,
    } = line;
    html! {
        section aria-labelledby=(service) {
            h2 id=(service) { (service) }
            p {
                span class={ "state " (class(*state)) } { (sign(*state)) " " (word(*state)) }
                " since " (time(*since))
            }
            (strip(days))
            table {
                caption { "Uptime of " (service) }
                thead { tr { @for of in uptime { th scope="col" { (of.window) } } } }
                tbody { tr { @for of in uptime { td { (percent(of.percent)) } } } }
            }
        }
    }
}

/// One bar per day, with a sentence that says the same.
fn strip(days: &[Spans]) -> Markup {
    let share = |spans: &Spans| {
        let known = spans.up_s + spans.down_s;
        (known > 0.0).then(|| spans.up_s / known * 100.0)
    };
    let shares: Vec<Option<f64>> = days.iter().map(share).collect();
    let known = shares.iter().flatten().count();
    let whole = shares
        .iter()
        .flatten()
        .filter(|share| **share >= 99.99)
        .count();
    let text = match known {
        0 => "Nothing is known of the last 90 days.".to_owned(),
        1 if whole == 1 => "On the one day that is known, it worked all the time.".to_owned(),
        1 => "On the one day that is known, it did not work all the time.".to_owned(),
        known => format!("Of {known} days that are known, it worked all the time on {whole}."),
    };
    let width = days.len() * 4;
    html! {
        svg.strip viewBox={ "0 0 " (width) " 24" } preserveAspectRatio="none" role="img" aria-label=(text) {
            @for (n, share) in shares.iter().enumerate() {
                @let height = height(*share);
                rect class=(bar(*share)) x=(n * 4) y=(24 - height) width="3" height=(height) {}
            }
        }
        p.small { (text) }
    }
}

/// Full, half, or a stump: the shape says it without the colour.
fn height(share: Option<f64>) -> u32 {
    match share {
        None => 4,
        Some(share) if share >= 99.99 => 24,
        Some(share) if share >= 99.0 => 16,
        Some(_) => 8,
    }
}

fn bar(share: Option<f64>) -> &'static str {
    match share {
        None => "none",
        Some(share) if share >= 99.99 => "good",
        Some(share) if share >= 99.0 => "fair",
        Some(_) => "bad",
    }
}

fn class(state: HealthState) -> &'static str {
    match state {
        HealthState::Healthy => "good",
        HealthState::Starting | HealthState::Degraded => "fair",
        HealthState::Unhealthy | HealthState::Down => "bad",
        HealthState::Unknown => "none",
    }
}

fn sign(state: HealthState) -> &'static str {
    match state {
        HealthState::Healthy => "✓",
        HealthState::Starting => "…",
        HealthState::Degraded => "!",
        HealthState::Unhealthy | HealthState::Down => "✗",
        HealthState::Unknown => "?",
    }
}

fn is_bad(state: HealthState) -> bool {
    matches!(
        state,
        HealthState::Degraded | HealthState::Unhealthy | HealthState::Down
    )
}

fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(|| "unknown".to_owned(), |percent| format!("{percent} %"))
}

/// A badge for a README: the name, and how it is.
pub(crate) fn badge(service: &str, text: &str, state: HealthState) -> String {
    // The width of a text of 11 px is about 7 px per sign; `textLength` makes it exact.
    let width = |text: &str| text.chars().count() * 7;
    let (left, right) = (width(service) + 12, width(text) + 12);
    let colour = match class(state) {
        "good" => "#1a7f37",
        "fair" => "#7d4e00",
        "bad" => "#b3261e",
        _ => "#57606a",
    };
    let label = format!("{service}: {text}");
    let badge = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(left + right) height="20" role="img" aria-label=(label) {
            title { (label) }
            rect width=(left) height="20" fill="#24292f" {}
            rect x=(left) width=(right) height="20" fill=(colour) {}
            g fill="#ffffff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" {
                text x="6" y="14" textLength=(left - 12) lengthAdjust="spacingAndGlyphs" { (service) }
                text x=(left + 6) y="14" textLength=(right - 12) lengthAdjust="spacingAndGlyphs" { (text) }
            }
        }
    };
    badge.into_string()
}

/// The days of a service, oldest first, from its hours.
pub(crate) fn days(hours: &[(i64, Spans)], now: UnixSeconds) -> Vec<Spans> {
    const DAY: Duration = Duration::from_secs(86_400);
    let day_of = |minute: i64| minute.div_euclid(1_440);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "days since 1970 fit for long"
    )]
    let today = (now / DAY.as_secs_f64()).floor() as i64;
    let mut by_day: BTreeMap<i64, Spans> = BTreeMap::new();
    for (minute, spans) in hours {
        by_day.entry(day_of(*minute)).or_default().merge(spans);
    }
    let first = today + 1 - i64::try_from(DAYS).unwrap_or(90);
    (first..=today)
        .map(|day| by_day.get(&day).copied().unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(state: HealthState) -> Line {
        let up = Spans {
            up_s: 3_600.0,
            ..Spans::default()
        };
        Line {
            service: ServiceName::new("api").expect("an id"),
            state,
            since: 0.0,
            uptime: vec![Uptime::of("24h", Duration::from_secs(86_400), &up)],
            days: days(&[(0, up)], 3_600.0),
        }
    }

    #[test]
    fn the_page_says_in_words_what_it_shows() {
        let config = StatusPage {
            title: "House <of> cards".to_owned(),
            ..StatusPage::default()
        };
        let text = page(&config, &[line(HealthState::Healthy)], 3_600.0);
        assert!(text.contains("<h1>House &lt;of&gt; cards</h1>"), "{text}");
        assert!(text.contains("All services work."));
        assert!(text.contains("On the one day that is known, it worked all the time."));
        assert!(text.contains("<td>100 %</td>"));
        assert!(!text.contains("<script"));
        let text = page(
            &config,
            &[line(HealthState::Healthy), line(HealthState::Down)],
            0.0,
        );
        assert!(text.contains("One service does not work as it should."));
        assert!(text.contains("✗ down"));
        assert!(page(&config, &[], 0.0).contains("No service is shown."));
        let starting = page(&config, &[line(HealthState::Starting)], 0.0);
        assert!(starting.contains("One service is starting."));
    }

    #[test]
    fn a_day_is_where_it_belongs() {
        let up = Spans {
            up_s: 1.0,
            ..Spans::default()
        };
        let noon = 100.5 * 86_400.0;
        let found = days(
            &[
                (100 * 1_440, up),
                (100 * 1_440 + 60, up),
                (99 * 1_440, up),
                (5, up),
            ],
            noon,
        );
        assert_eq!(found.len(), DAYS);
        assert_eq!(
            (found[89].up_s, found[88].up_s, found[87].up_s),
            (2.0, 1.0, 0.0)
        );
    }

    #[test]
    fn a_badge_is_an_image_with_a_name() {
        let text = badge("api", "99.9 %", HealthState::Healthy);
        assert!(text.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(text.contains("aria-label=\"api: 99.9 %\""));
    }
}
