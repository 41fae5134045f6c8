//! The live table of `alicia up`.

use std::io::Write;
use std::time::Duration;

use alicia_contract::orchestrator::ProcessRow;
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

/// Draws over the last table and gives the number of lines. Long lines are cut by the terminal, not wrapped,
/// so that the count holds.
fn draw(rows: &[ProcessRow], lines_drawn: usize) -> usize {
    const NO_WRAP: &str = "\x1b[?7l";
    const WRAP: &str = "\x1b[?7h";
    const CLEAR_BELOW: &str = "\x1b[J";
    let text = show::processes(rows, show::now()).text();
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
