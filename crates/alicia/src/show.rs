//! How things are shown: tables, times, sizes. Colour only on a terminal.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use alicia_contract::health::HealthState;
use alicia_contract::orchestrator::{InstanceState, ProcessRow};
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::Outcome;

/// A table of text, as wide as its content.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| (*heading).to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row. Cells may hold colour; a line feed in one would make a row that is none.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| cell.replace('\n', " "));
        self.rows.push(cells.collect());
    }

    /// The table as text, a line per row.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column).map(String::as_str));
            cells.map(visible_chars).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let last = row.len().saturating_sub(1);
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(cell);
                if at != last {
                    text.extend(std::iter::repeat_n(' ', width + 2 - visible_chars(cell)));
                }
            }
            text.push('\n');
        }
        text
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        anstream::print!("{}", self.text());
    }
}

/// The characters that take a place on the screen: not those of colour.
fn visible_chars(cell: &str) -> usize {
    anstream::adapter::strip_str(cell)
        .to_string()
        .chars()
        .count()
}

/// What stands for a character that is not shown.
const NOT_SHOWN: char = '\u{fffd}';

/// Whether a terminal would do something else than show it, or show the text around it in another order.
fn is_command(character: char) -> bool {
    let turns_around = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (character.is_control() && character != '\t') || turns_around
}

/// A text of somebody else. Its lines stay.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |c: char| {
        if c != '\n' && is_command(c) {
            NOT_SHOWN
        } else {
            c
        }
    };
    text.chars().map(shown).collect()
}

/// A text of somebody else that is to stay in its line.
pub(crate) fn one_line(text: &str) -> String {
    let shown = |c: char| if is_command(c) { NOT_SHOWN } else { c };
    text.chars().map(shown).collect()
}

/// A line of the output of a service: its colours stay, to its end.
pub(crate) fn output_line(line: &str) -> String {
    let mut rest = line.strip_suffix('\r').unwrap_or(line);
    let mut shown = String::with_capacity(rest.len());
    let mut is_coloured = false;
    while let Some(at) = rest.find(is_command) {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(length) = colour_bytes(rest) {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            is_coloured = true;
        } else {
            shown.push(NOT_SHOWN);
            rest = rest
                .get(rest.chars().next().map_or(0, char::len_utf8)..)
                .unwrap_or_default();
        }
    }
    shown.push_str(rest);
    if is_coloured {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// How many bytes at the beginning only set colours and the like (SGR; ECMA-48, section 8.3.117).
fn colour_bytes(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let is_parameter = |c: char| c.is_ascii_digit() || matches!(c, ';' | ':');
    let end = parameters.find(|c| !is_parameter(c))?;
    let before = text.len() - parameters.len();
    parameters[end..]
        .starts_with('m')
        .then_some(before + end + 1)
}

/// The table of `alicia ps`.
pub(crate) fn processes(rows: &[ProcessRow], now: f64) -> Table {
    let mut table = Table::new(&[
        "INSTANCE", "STATE", "SINCE", "PID", "RESTARTS", "CPU", "MEMORY", "HEALTH", "WHY",
    ]);
    for row in rows {
        table.row([
            row.instance.clone(),
            coloured(state_name(row.state), state_colour(row.state)),
            span((now - row.since).max(0.0)),
            row.pid.map_or_else(dash, |pid| pid.to_string()),
            row.restarts.to_string(),
            row.cpu
                .map_or_else(dash, |cores| format!("{:.1}%", cores * 100.0)),
            row.memory_bytes.map_or_else(dash, bytes),
            row.health.map_or_else(dash, |health| {
                coloured(health_name(health), health_colour(health))
            }),
            last_of(row, now),
        ]);
    }
    table
}

/// What a reason ends with where a next start is planned.
const NEXT_TRY: &str = "; the next try is in";

/// The last column: what a person should know first of this instance.
fn last_of(row: &ProcessRow, now: f64) -> String {
    let mut parts = Vec::new();
    // What waits, is parked or has failed says why, which may be more than how it ended.
    let says_why = !matches!(
        row.state,
        InstanceState::Running | InstanceState::Completed | InstanceState::Stopped
    );
    let ended = row.exit.as_ref();
    if says_why
        && !row.reason.is_empty()
        && ended.is_none_or(|exit| exit.cause == row.reason || !exit.cause.contains(&row.reason))
    {
        // The time of the next start is told as it runs down.
        let reason = match row.next_start {
            Some(_) => row.reason.split(NEXT_TRY).next().unwrap_or_default(),
            None => &row.reason,
        };
        parts.push(reason.to_owned());
    }
    if let Some(exit) = ended.filter(|exit| !row.reason.contains(&exit.cause) || !says_why) {
        parts.push(format!(
            "{} ({} ago)",
            exit.cause,
            span((now - exit.at).max(0.0))
        ));
    }
    if let Some(at) = row.next_start {
        parts.push(format!("next try in {}", span(at - now)));
    }
    parts.extend(row.attention.clone());
    parts.extend(row.says.as_ref().map(|says| format!("says: {says}")));
    parts.join("; ")
}

fn dash() -> String {
    "-".to_owned()
}

fn coloured(text: &str, colour: AnsiColor) -> String {
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

/// The name of a state, as in JSON.
pub(crate) fn state_name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Waiting => "waiting",
        InstanceState::Starting => "starting",
        InstanceState::Running => "running",
        InstanceState::Backoff => "backoff",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
        InstanceState::Completed => "completed",
        InstanceState::Failed => "failed",
        InstanceState::Parked => "parked",
        InstanceState::Paused => "paused",
    }
}

fn state_colour(state: InstanceState) -> AnsiColor {
    match state {
        InstanceState::Running | InstanceState::Completed => AnsiColor::Green,
        InstanceState::Waiting | InstanceState::Starting | InstanceState::Stopping => {
            AnsiColor::Cyan
        }
        InstanceState::Backoff | InstanceState::Parked | InstanceState::Paused => AnsiColor::Yellow,
        InstanceState::Failed => AnsiColor::Red,
        InstanceState::Stopped => AnsiColor::BrightBlack,
    }
}

fn health_name(health: HealthState) -> &'static str {
    match health {
        HealthState::Healthy => "healthy",
        HealthState::Starting => "starting",
        HealthState::Degraded => "degraded",
        HealthState::Unhealthy => "unhealthy",
        HealthState::Down => "down",
        HealthState::Unknown => "unknown",
    }
}

fn health_colour(health: HealthState) -> AnsiColor {
    match health {
        HealthState::Healthy => AnsiColor::Green,
        HealthState::Starting => AnsiColor::Cyan,
        HealthState::Degraded => AnsiColor::Yellow,
        HealthState::Unhealthy | HealthState::Down => AnsiColor::Red,
        HealthState::Unknown => AnsiColor::BrightBlack,
    }
}

/// The wall time in Unix seconds.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// A length of time in its two largest units: `3d 4h`, `5m 2s`, `12s`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds are shown whole and not negative"
)]
pub(crate) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes, rest) = (
        whole / 86_400,
        whole / 3_600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    let mut text = String::new();
    let written = match (days, hours, minutes) {
        (0, 0, 0) => write!(text, "{rest}s"),
        (0, 0, _) => write!(text, "{minutes}m {rest}s"),
        (0, ..) => write!(text, "{hours}h {minutes}m"),
        _ => write!(text, "{days}d {hours}h"),
    };
    written.expect("writing to a String cannot fail");
    text
}

/// A point in time, local.
#[expect(
    clippy::cast_possible_truncation,
    reason = "whole milliseconds are shown"
)]
pub(crate) fn time(unix: f64) -> String {
    match jiff::Timestamp::from_millisecond((unix * 1e3) as i64) {
        Ok(at) => at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => dash(),
    }
}

/// A number of bytes in the largest unit that leaves a whole digit.
#[expect(
    clippy::cast_precision_loss,
    reason = "one digit after the point is shown"
)]
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes}B")
    } else {
        format!("{value:.1}{}", units[unit])
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        let check = |seconds: f64, text: &str| assert_eq!(span(seconds), text);
        check(0.4, "0s");
        check(62.0, "1m 2s");
        check(3_600.0, "1h 0m");
        check(90_000.0, "1d 1h");
        check(-3.0, "0s");
        assert_eq!(bytes(1_023), "1023B");
        assert_eq!(bytes(1_536), "1.5KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0TiB");
    }

    #[test]
    fn what_does_not_run_says_why() {
        let row = |state: InstanceState, reason: &str, cause: Option<&str>| {
            let exit = cause.map(|cause| alicia_contract::orchestrator::Exit {
                cause: cause.to_owned(),
                at: 90.0,
                ..Default::default()
            });
            let row = ProcessRow {
                service: alicia_contract::ServiceName::new("api").expect("a name"),
                instance: "api-1".to_owned(),
                state,
                pid: None,
                restarts: 0,
                since: 0.0,
                exit,
                health: None,
                cpu: None,
                memory_bytes: None,
                limits: Vec::new(),
                reason: reason.to_owned(),
                next_start: None,
                says: None,
                attention: None,
            };
            last_of(&row, 100.0)
        };
        assert_eq!(
            row(InstanceState::Waiting, "waits for db", None),
            "waits for db"
        );
        let ended = row(InstanceState::Running, "ready", Some("exit code 3"));
        assert_eq!(ended, "exit code 3 (10s ago)");
        let failed = row(
            InstanceState::Failed,
            "exit code 3, six times",
            Some("exit code 3"),
        );
        assert_eq!(failed, "exit code 3, six times");
        let same = row(InstanceState::Parked, "exit code 75", Some("exit code 75"));
        assert_eq!(same, "exit code 75");
        let parked = row(InstanceState::Parked, "a limit", Some("exit code 75"));
        assert_eq!(parked, "a limit; exit code 75 (10s ago)");
        assert_eq!(
            row(
                InstanceState::Backoff,
                "exit code 3",
                Some("exit code 3: no")
            ),
            "exit code 3: no (10s ago)"
        );
    }

    #[test]
    fn nothing_that_a_service_says_commands_the_terminal() {
        let check = |text: &str, expected: [&str; 3]| {
            let found = [harmless(text), one_line(text), output_line(text)];
            assert_eq!(found, expected, "{text:?}");
        };
        check("plain\ttext ä", ["plain\ttext ä"; 3]);
        check("a\nb", ["a\nb", "a\u{fffd}b", "a\u{fffd}b"]);
        // Clears the screen; sets the title; a control character of one byte less; turns the line around.
        for bad in [
            "\x1b[2J",
            "\x1b]0;x\x07",
            "\u{9b}2J",
            "a\u{202e}b",
            "\x08",
            "\x7f",
            "\x1b",
        ] {
            for shown in [harmless(bad), one_line(bad), output_line(bad)] {
                assert!(!shown.contains(is_command), "{bad:?} became {shown:?}");
                assert!(shown.contains(NOT_SHOWN), "{bad:?} became {shown:?}");
            }
        }
        assert_eq!(output_line("x\x1b[1;31mred"), "x\x1b[1;31mred\x1b[0m");
        assert_eq!(output_line("ends\r"), "ends");
        assert_eq!(output_line("\x1b[31"), "\u{fffd}[31");
        assert_eq!(output_line("\x1b[31K"), "\u{fffd}[31K");
    }

    #[test]
    fn a_cell_makes_no_row() {
        let mut table = Table::new(&["A"]);
        table.row(["x\napi-1  running".into()]);
        assert_eq!(table.text(), "A\nx api-1  running\n");
    }

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let mut table = Table::new(&["A", "B"]);
        table.row([coloured("long", AnsiColor::Red), "x".into()]);
        table.row(["s".into(), "y".into()]);
        let plain = anstream::adapter::strip_str(&table.text()).to_string();
        assert_eq!(plain, "A     B\nlong  x\ns     y\n");
    }
}
