//! A report as Markdown, for a mail or a ticket, and as a page.

use std::fmt::Write as _;

use alicia_contract::unit::UnixSeconds;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html as page};

use super::Report;
use crate::status_page::STYLE;

/// As Markdown (CommonMark, with tables as on GitHub).
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# {}: {} to {}\n\nAvailability {}, {}.\n",
        plain(&report.fleet),
        time(report.from),
        time(report.to),
        percent(report.availability_percent),
        incidents(report),
    );
    if report.services.is_empty() {
        text.push_str("\nNo service was watched in this time.\n");
        return text;
    }
    let mut table = |title: &str, head: &[&str], rows: Vec<Vec<String>>| {
        if rows.is_empty() {
            return;
        }
        let rule = vec!["---"; head.len()].join(" | ");
        // Writing to a String cannot fail.
        let _written = write!(
            text,
            "\n## {title}\n\n| {} |\n| {rule} |\n",
            head.join(" | ")
        );
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
            let _written = writeln!(text, "| {} |", cells.join(" | "));
        }
    };
    for (title, head, rows) in tables(report) {
        table(title, &head, rows);
    }
    text
}

/// As a page that needs nothing else.
pub(crate) fn html(report: &Report) -> String {
    let title = format!(
        "{}: {} to {}",
        report.fleet,
        time(report.from),
        time(report.to)
    );
    let body = page! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (title) }
                    p {
                        "Availability " strong { (percent(report.availability_percent)) } ", " (incidents(report)) "."
                    }
                    @if report.services.is_empty() { p { "No service was watched in this time." } }
                    @for (title, head, rows) in tables(report) {
                        @if !rows.is_empty() { (table(title, &head, &rows)) }
                    }
                }
            }
        }
    };
    body.into_string()
}

/// How many incidents there were, and how long they took.
fn incidents(report: &Report) -> String {
    let count = match report.incidents_count {
        0 => return "no incidents".to_owned(),
        1 => "1 incident".to_owned(),
        several => format!("{several} incidents"),
    };
    match report.mttr_s {
        None => format!("{count}, not mended"),
        mended => format!("{count}, mended in {} on average", span(mended)),
    }
}

fn table(title: &str, head: &[&str], rows: &[Vec<String>]) -> Markup {
    page! {
        section {
            h2 { (title) }
            div.wide tabindex="0" role="region" aria-label=(title) {
                table {
                    thead { tr { @for cell in head { th scope="col" { (cell) } } } }
                    tbody {
                        @for row in rows {
                            tr {
                                @for (n, cell) in row.iter().enumerate() {
                                    @if n == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

type Table = (&'static str, Vec<&'static str>, Vec<Vec<String>>);

fn tables(report: &Report) -> Vec<Table> {
    let services = report.services.iter().map(|of| {
        vec![
            of.service.to_string(),
            percent(of.availability_percent),
            span(Some(of.down_s)),
            span(Some(of.unknown_s)),
            of.incidents.to_string(),
            span(of.mttr_s),
            span(of.longest_s),
        ]
    });
    let incidents = report.incidents.iter().map(|of| {
        let ended = of.ended.map_or_else(|| "not mended".to_owned(), time);
        let reason = of.reason.clone();
        vec![
            of.service.to_string(),
            time(of.began),
            ended,
            span(Some(of.lasted_s)),
            reason,
        ]
    });
    let slowest = report.slowest.iter().map(|of| {
        vec![
            format!("{} of {}", of.check, of.service),
            format!("{:.0} ms", of.latency_ms_p95),
            format!("{:.1} ms", of.latency_ms_mean),
            format!("{:.0} ms", of.latency_ms_max),
            of.tries.to_string(),
            of.failures.to_string(),
        ]
    });
    let flapping = report
        .flapping
        .iter()
        .map(|of| vec![of.service.to_string(), of.turns.to_string()]);
    vec![
        (
            "Services",
            vec![
                "Service",
                "Availability",
                "Down",
                "Unknown",
                "Incidents",
                "Mean time to mend",
                "Longest",
            ],
            services.collect(),
        ),
        (
            "Incidents",
            vec!["Service", "Began", "Ended", "Lasted", "Why"],
            incidents.collect(),
        ),
        (
            "Slowest checks",
            vec!["Check", "p95", "Mean", "Longest", "Tries", "Failed"],
            slowest.collect(),
        ),
        (
            "Flapping",
            vec!["Service", "Turned bad"],
            flapping.collect(),
        ),
    ]
}

/// A text in a table of Markdown: nothing in it is markup.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '\n' | '\r' => plain.push(' '),
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '>' | '\\' | '#' | '~' | '&' => {
                plain.push('\\');
                plain.push(sign);
            }
            _ => plain.push(sign),
        }
    }
    plain
}

fn percent(percent: Option<f64>) -> String {
    percent.map_or_else(|| "unknown".to_owned(), |percent| format!("{percent} %"))
}

/// `2026-11-21 13:00:00` UTC.
pub(crate) fn time(unix: UnixSeconds) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "seconds since 1970 fit for long"
    )]
    let seconds = unix as i64;
    let time = Timestamp::from_second(seconds);
    time.map_or_else(
        |_| "-".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

/// `1d 2h`, `3m 20s`, `0.4s`.
pub(crate) fn span(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".to_owned();
    };
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is above 10, and fits for long"
    )]
    let whole = seconds.round() as u64;
    let parts = [
        (whole / 86_400, "d"),
        (whole / 3_600 % 24, "h"),
        (whole / 60 % 60, "m"),
        (whole % 60, "s"),
    ];
    let told = parts.iter().skip_while(|(number, _)| *number == 0).take(2);
    let told: Vec<String> = told
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    told.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::{report, tests::material};
    use super::*;

    #[test]
    fn markdown_holds_the_figures_and_no_markup_of_others() {
        let text = markdown(&report(material()));
        assert!(
            text.starts_with(
                "# home \\<1\\>: 1970-01-01 00:16:40 UTC to 1970-01-01 00:33:20 UTC\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("Availability 66 %, 3 incidents, mended in 5.0s on average."),
            "{text}"
        );
        assert!(
            text.contains("| api | 99 % | 10s | 0.0s | 2 | 5.0s | 6.0s |"),
            "{text}"
        );
        assert!(
            text.contains("| db | 1970-01-01 00:16:40 UTC | not mended | 16m 40s | db at 900 |"),
            "{text}"
        );
    }

    #[test]
    fn the_page_escapes_what_it_shows() {
        let text = html(&report(material()));
        assert!(text.contains("<h1>home &lt;1&gt;: "), "{text}");
        assert!(
            text.contains("<th scope=\"row\">api</th><td>99 %</td>"),
            "{text}"
        );
        assert!(!text.contains("<script"));
    }

    #[test]
    fn spans_are_short() {
        let check = |seconds: f64, expected: &str| assert_eq!(span(Some(seconds)), expected);
        check(0.44, "0.4s");
        check(59.6, "1m");
        check(200.0, "3m 20s");
        check(3_600.0, "1h");
        check(100_000.0, "1d 3h");
    }
}
