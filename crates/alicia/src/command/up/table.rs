//! The live table of `alicia up`.

use std::io::Write;
use std::time::Duration;

use alicia_contract::health::HealthState;
use alicia_contract::orchestrator::{InstanceState, ProcessRow};
use alicia_host::Host;
use alicia_module::Paths;

use crate::api::ApiClient;
use crate::failure::Outcome;
use crate::show;

/// A person sees no faster than this.
const REDRAW: Duration = Duration::from_millis(500);

/// Says where everything is.
pub(super) fn greet(host: &Host, paths: &Paths) -> Outcome<()> {
    let code = host.identity().create_link("admin", show::now())?;
    let bus = host.bus().map(|bus| bus.to_string()).unwrap_or_default();
    println!("page   http://{}/sign-in?code={code}", host.api());
    println!(
        "bus    {bus}   user admin, password in {}",
        paths.admin_key().display()
    );
    println!("data   {}", paths.data().display());
    println!(
        "Control-C ends the fleet. In another terminal: alicia ps, alicia logs -f, alicia bus sub 'alicia/#'"
    );
    println!();
    Ok(())
}

/// Draws the table again and again, as long as it is polled. Without a terminal it shows nothing.
pub(super) async fn show(api: &ApiClient, on_terminal: bool) {
    if !on_terminal {
        return std::future::pending().await;
    }
    let mut lines_drawn = 0;
    loop {
        if let Ok(rows) = api
            .get::<Vec<ProcessRow>>("/api/orchestrator/instances")
            .await
        {
            lines_drawn = draw(&rows, lines_drawn);
        }
        tokio::time::sleep(REDRAW).await;
    }
}

/// The table in so many lines of a terminal (0: not known, so all of it). A table that were higher than the screen could
/// not be drawn over; of one that is, what is not well comes first and the rest is counted.
fn fitting(rows: &[ProcessRow], height: usize, now: f64) -> String {
    // The headings, the line that counts the rest, and the line of the cursor.
    const BESIDE: usize = 3;
    if height == 0 || rows.len() + 2 <= height {
        return show::processes(rows, now).text();
    }
    let room = height.saturating_sub(BESIDE).max(1);
    let mut sorted: Vec<ProcessRow> = rows.to_vec();
    sorted.sort_by_key(is_well);
    let rest = sorted.len().saturating_sub(room);
    sorted.truncate(room);
    format!(
        "{}… {rest} more; `alicia ps` shows all of them\n",
        show::processes(&sorted, now).text()
    )
}

fn is_well(row: &ProcessRow) -> bool {
    let is_there = matches!(
        row.state,
        InstanceState::Running | InstanceState::Completed | InstanceState::Stopped
    );
    let is_sound = !matches!(
        row.health,
        Some(HealthState::Degraded | HealthState::Unhealthy | HealthState::Down)
    );
    is_there && is_sound && row.attention.is_none()
}

/// Draws over the last table and gives the number of lines. Long lines are cut by the terminal, not wrapped,
/// so that the count holds.
fn draw(rows: &[ProcessRow], lines_drawn: usize) -> usize {
    const NO_WRAP: &str = "\x1b[?7l";
    const WRAP: &str = "\x1b[?7h";
    const CLEAR_BELOW: &str = "\x1b[J";
    let height =
        rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_row));
    let text = fitting(rows, height, show::now());
    let up = if lines_drawn == 0 {
        String::new()
    } else {
        format!("\x1b[{lines_drawn}A\r")
    };
    let mut out = anstream::stdout().lock();
    let drawn = write!(out, "{up}{NO_WRAP}{CLEAR_BELOW}{text}{WRAP}").and_then(|()| out.flush());
    // A terminal that went away shows nothing any more; the fleet goes on.
    if drawn.is_err() {
        0
    } else {
        text.lines().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u32) -> Vec<ProcessRow> {
        (1..=count)
            .map(|slot| {
                let state = match slot {
                    90 => "failed",
                    _ => "running",
                };
                serde_json::from_value(serde_json::json!({
                    "service": "api", "instance": format!("api-{slot}"), "state": state, "pid": null,
                    "restarts": 0, "since": 0.0, "exit": null, "health": null, "cpu": null, "memory_bytes": null,
                }))
                .expect("a row")
            })
            .collect()
    }

    #[test]
    fn a_table_that_fits_is_whole() {
        let check = |count: u32, height: usize| {
            let text = fitting(&rows(count), height, 0.0);
            let lines = u32::try_from(text.lines().count()).expect("few");
            assert_eq!(lines, count + 1, "{text}");
        };
        check(3, 0);
        check(3, 24);
        check(22, 24);
        check(100, 0);
    }

    #[test]
    fn a_longer_one_shows_what_is_not_well_and_counts_the_rest() {
        let text = fitting(&rows(100), 24, 0.0);
        assert!(text.lines().count() < 24, "{text}");
        assert!(
            text.contains("api-90 ") && text.contains("79 more"),
            "{text}"
        );
    }
}
