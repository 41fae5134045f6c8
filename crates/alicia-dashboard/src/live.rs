//! The event stream: whenever the picture or the output changed, the parts of the page anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use alicia_contract::ServiceName;
use alicia_keeper::logs::{Filter, Line, read_last};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use maud::Markup;

use crate::Site;
use crate::picture::Picture;
use crate::view::{self, LastLine};

/// The output of services is looked at this often while somebody watches; and times ("since") grow older.
const REFRESH: Duration = Duration::from_secs(1);

/// Changes that follow each other faster are shown together.
const GATHER: Duration = Duration::from_millis(50);

/// How many lines the page of a service shows.
const LINES_MAX: usize = 200;

/// What a stream shows.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// The overview.
    Overview,
    /// One service.
    Service(ServiceName),
}

/// The main part of a page.
pub(crate) async fn part(site: &Site, shown: &Shown) -> Markup {
    let picture = site.picture.borrow().clone();
    let (site, shown) = (site.clone(), shown.clone());
    let made = tokio::task::spawn_blocking(move || {
        let now = site.cx.clock.unix();
        match &shown {
            Shown::Overview => view::overview(&picture, &last_lines(&site, &picture), now),
            Shown::Service(name) => {
                view::service(&picture, name.as_str(), &lines(&site, &picture, name), now)
            }
        }
    });
    made.await
        .expect("making a page does not panic and is not cancelled")
}

/// The part again and again, each time that it changed.
pub(crate) fn stream(
    site: Site,
    shown: Shown,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let state = (site, shown, String::new());
    let events = futures_util::stream::unfold(state, |(mut site, shown, mut before)| async move {
        loop {
            let html = part(&site, &shown).await.into_string();
            if html != before {
                before.clone_from(&html);
                let event = Event::default().event("main").data(html);
                return Some((Ok(event), (site, shown, before)));
            }
            tokio::select! {
                changed = site.picture.changed() => {
                    // The module ended: so does the stream, and the page says that it lost its connection.
                    changed.ok()?;
                    tokio::time::sleep(GATHER).await;
                }
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// The last line of each instance.
fn last_lines(site: &Site, picture: &Arc<Picture>) -> Vec<LastLine> {
    let services = picture.fleet.iter().flat_map(|fleet| &fleet.services);
    let slots = services.flat_map(|service| {
        service
            .instances
            .iter()
            .map(|instance| (&service.service, instance.slot))
    });
    slots
        .filter_map(|(service, slot)| {
            let line = read(site, service, slot, 1).pop()?;
            Some(LastLine {
                service: service.to_string(),
                slot,
                text: line.text,
            })
        })
        .collect()
}

/// The last lines of all instances of a service, in the order of time.
fn lines(site: &Site, picture: &Arc<Picture>, name: &ServiceName) -> Vec<(u32, Line)> {
    let services = picture.fleet.iter().flat_map(|fleet| &fleet.services);
    let slots = services
        .filter(|service| service.service == *name)
        .flat_map(|service| &service.instances);
    let mut lines: Vec<(u32, Line)> = slots
        .flat_map(|instance| {
            let slot = instance.slot;
            read(site, name, slot, LINES_MAX)
                .into_iter()
                .map(move |line| (slot, line))
        })
        .collect();
    lines.sort_by_key(|(_, line)| line.unix_us);
    let surplus = lines.len().saturating_sub(LINES_MAX);
    lines.drain(..surplus);
    lines
}

/// A log that cannot be read has no lines on the page; the log of Alicia says why.
fn read(site: &Site, service: &ServiceName, slot: u32, count: usize) -> Vec<Line> {
    let path = site.cx.paths.log_file(service.as_str(), slot);
    read_last(&path, count, &Filter::default()).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "log not read");
        Vec::new()
    })
}
