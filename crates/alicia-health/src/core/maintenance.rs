//! Maintenance windows: while one is open, nobody is notified of alerts of its services. Those of the file repeat
//! as cron says or come once; those made by REST come once.

use std::collections::{BTreeMap, BTreeSet};

use alicia_contract::fleet::Fleet;
use alicia_contract::health::{Maintenance, Phase};
use alicia_contract::id::ServiceName;
use alicia_contract::unit::UnixSeconds;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cron::{Cron, shifted};
use super::silence::phase;

/// Most windows by REST at a time.
pub const WINDOWS_MAX: usize = 1_000;

/// How long a window by REST that is over is kept: as long as a silence.
pub const KEPT_S: f64 = super::silence::KEPT_S;

/// When a window is open.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// From a moment to another.
    Once(UnixSeconds, UnixSeconds),
    /// Again and again, each time for so many seconds.
    Repeated {
        /// The beginnings.
        cron: Cron,
        /// As it was written.
        text: String,
        /// Where the hours are meant.
        zone: TimeZone,
        /// How long each lasts.
        seconds: u32,
    },
}

/// A window.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// The id.
    pub id: String,
    /// Services or groups; none: all.
    pub services: Vec<ServiceName>,
    /// When it is open.
    pub when: When,
    /// Why.
    pub comment: String,
    /// Who made it.
    pub by: String,
}

/// Every window, with the opening of each that is now or next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Windows(BTreeMap<String, Held>);

#[derive(Debug, Clone, PartialEq)]
struct Held {
    window: Window,
    /// The opening that is now or next, and the moment for which it was found.
    opening: Option<(UnixSeconds, UnixSeconds)>,
    found: UnixSeconds,
}

// === impl Windows ===

impl Windows {
    /// Adds a window, or puts it in the place of the one with its id.
    ///
    /// # Errors
    /// In words, when there are too many.
    pub fn set(&mut self, window: Window, now: UnixSeconds) -> Result<Maintenance, String> {
        if self.0.len() >= WINDOWS_MAX
            && !self.0.contains_key(&window.id)
            && !self.forget_oldest(now)
        {
            return Err(format!(
                "there are {WINDOWS_MAX} maintenance windows already; end some first"
            ));
        }
        let opening = opening(&window.when, now);
        let held = Held {
            opening,
            found: now,
            window,
        };
        let shown = shown(&held, now);
        self.0.insert(shown.id.clone(), held);
        Ok(shown)
    }

    /// Makes room: of those that are over, the one that ended first is forgotten. `false`: none is over.
    fn forget_oldest(&mut self, now: UnixSeconds) -> bool {
        let ended = self.0.values().filter_map(|held| match held.window.when {
            When::Once(_, ends) if ends <= now => Some((ends, &held.window.id)),
            _ => None,
        });
        let oldest = ended.min_by(|(one, _), (other, _)| one.total_cmp(other));
        let oldest = oldest.map(|(_, id)| id.clone());
        oldest.is_some_and(|id| self.0.remove(&id).is_some())
    }

    /// Ends a window that was made by REST. `None`: there is no such one, or it is over.
    pub fn end(&mut self, id: &str, now: UnixSeconds) -> Option<Maintenance> {
        let held = self.0.get_mut(id)?;
        let When::Once(starts, ends) = &mut held.window.when else {
            return None;
        };
        if *ends <= now {
            return None;
        }
        (*starts, *ends) = (starts.min(now), now);
        held.opening = None;
        Some(shown(held, now))
    }

    /// Finds the openings anew where they are over or the clock was set, and drops what was over long ago.
    pub fn refresh(&mut self, now: UnixSeconds) {
        self.0.retain(|_, held| match held.window.when {
            When::Once(_, ends) => ends + KEPT_S > now,
            When::Repeated { .. } => true,
        });
        for held in self.0.values_mut() {
            let over = held.opening.is_some_and(|(_, ends)| ends <= now);
            if over || now < held.found {
                held.opening = opening(&held.window.when, now);
                held.found = now;
            }
        }
    }

    /// The open window that a service is in.
    #[must_use]
    pub fn of(&self, service: &ServiceName, fleet: &Fleet, now: UnixSeconds) -> Option<&Window> {
        let groups: BTreeSet<&ServiceName> = fleet
            .services
            .get(service)
            .into_iter()
            .flat_map(|spec| &spec.groups)
            .collect();
        let is_open = |held: &&Held| {
            let opening = held.opening;
            opening.is_some_and(|(starts, ends)| starts <= now && now < ends)
        };
        let covers = |held: &&Held| {
            let services = &held.window.services;
            services.is_empty()
                || services
                    .iter()
                    .any(|named| named == service || groups.contains(named))
        };
        self.0
            .values()
            .filter(is_open)
            .find(covers)
            .map(|held| &held.window)
    }

    /// All, open ones first, then by their start.
    #[must_use]
    pub fn list(&self, now: UnixSeconds) -> Vec<Maintenance> {
        let mut all: Vec<Maintenance> = self.0.values().map(|held| shown(held, now)).collect();
        let starts = |window: &Maintenance| window.starts.unwrap_or(f64::MAX);
        all.sort_by(|a, b| {
            let open = |window: &Maintenance| window.phase != Phase::Active;
            (open(a).cmp(&open(b))).then(starts(a).total_cmp(&starts(b)))
        });
        all
    }
}

fn shown(held: &Held, now: UnixSeconds) -> Maintenance {
    let window = &held.window;
    let (starts, ends) = match (&window.when, held.opening) {
        (When::Once(starts, ends), _) => (Some(*starts), Some(*ends)),
        (_, Some((starts, ends))) => (Some(starts), Some(ends)),
        (_, None) => (None, None),
    };
    let phase = match (starts, ends) {
        (Some(starts), Some(ends)) => phase(starts, ends, now),
        _ => Phase::Expired,
    };
    let cron = match &window.when {
        When::Once(..) => None,
        When::Repeated { text, .. } => Some(text.clone()),
    };
    Maintenance {
        id: window.id.clone(),
        services: window.services.clone(),
        phase,
        starts,
        ends,
        cron,
        comment: window.comment.clone(),
        by: window.by.clone(),
    }
}

/// The opening that is now or next.
fn opening(when: &When, now: UnixSeconds) -> Option<(UnixSeconds, UnixSeconds)> {
    match when {
        When::Once(starts, ends) => (*ends > now).then_some((*starts, *ends)),
        When::Repeated {
            cron,
            zone,
            seconds,
            ..
        } => {
            // The first that is not over yet: it begins later than one length ago.
            let from = shifted(moment(now)?, 1 - i64::from(*seconds))?;
            let starts = unix(cron.next(from, zone)?);
            Some((starts, starts + f64::from(*seconds)))
        }
    }
}

/// Wall time as a moment of the calendar, without its fraction.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is to go")]
fn moment(unix: UnixSeconds) -> Option<Timestamp> {
    Timestamp::from_second(unix.floor() as i64).ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds of any calendar fit into 52 bits"
)]
fn unix(moment: Timestamp) -> UnixSeconds {
    moment.as_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::fleet::ServiceSpec;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("an id")
    }

    fn fleet() -> Fleet {
        let mut spec = ServiceSpec::new(vec!["program".to_owned()]);
        spec.groups.push(name("web"));
        let services = [(name("api"), spec.into())].into();
        Fleet {
            services,
            ..Fleet::default()
        }
    }

    fn window(services: &[&str], when: When) -> Window {
        Window {
            id: "file-1".to_owned(),
            services: services.iter().map(|service| name(service)).collect(),
            when,
            comment: "backup".to_owned(),
            by: "alicia.yaml".to_owned(),
        }
    }

    fn at(text: &str) -> f64 {
        unix(text.parse().expect("a moment"))
    }

    #[test]
    fn a_repeated_window_is_open_each_time_for_its_length() {
        let cron = "0 3 * * *";
        let when = When::Repeated {
            cron: Cron::parse(cron).expect("reads"),
            text: cron.to_owned(),
            zone: TimeZone::get("Europe/Zurich").expect("known"),
            seconds: 3_600,
        };
        let mut windows = Windows::default();
        let now = at("2026-11-20T12:00:00Z");
        let shown = windows.set(window(&["api"], when), now).expect("set");
        assert_eq!(
            (shown.phase, shown.starts),
            (Phase::Pending, Some(at("2026-11-21T02:00:00Z")))
        );
        let mut open = |moment: &str| {
            windows.refresh(at(moment));
            windows.of(&name("api"), &fleet(), at(moment)).is_some()
        };
        assert!(!open("2026-11-21T01:59:59Z"));
        assert!(open("2026-11-21T02:00:00Z"));
        assert!(open("2026-11-21T02:59:59Z"));
        assert!(!open("2026-11-21T03:00:00Z"));
        assert!(open("2026-11-22T02:30:00Z"));
        assert!(
            open("2026-11-21T02:30:00Z"),
            "also when the clock is set back"
        );
        windows.refresh(at("2026-11-22T02:30:00Z"));
        assert_eq!(
            windows.list(at("2026-11-22T02:30:00Z"))[0].phase,
            Phase::Active
        );
        assert!(
            windows.end("file-1", 0.0).is_none(),
            "those of the file are the file's"
        );
    }

    #[test]
    fn windows_that_are_over_give_way_to_new_ones() {
        let mut windows = Windows::default();
        let mut set = |id: usize, starts: f64, now: f64| {
            let window = Window {
                id: id.to_string(),
                ..window(&[], When::Once(starts, starts + 10.0))
            };
            windows.set(window, now)
        };
        for id in 0..WINDOWS_MAX {
            set(id, if id == 3 { 10.0 } else { 1_000.0 }, 5.0).expect("made");
        }
        assert!(set(WINDOWS_MAX, 1_000.0, 15.0).is_err(), "all are to come");
        assert!(set(WINDOWS_MAX, 1_000.0, 20.0).is_ok(), "one is over");
        assert!(set(WINDOWS_MAX + 1, 1_000.0, 20.0).is_err());
    }

    #[test]
    fn a_window_covers_services_and_groups_and_can_be_ended() {
        let covers = |services: &[&str], service: &str| {
            let mut windows = Windows::default();
            let made = windows.set(window(services, When::Once(10.0, 20.0)), 5.0);
            made.expect("made");
            windows.of(&name(service), &fleet(), 15.0).is_some()
        };
        assert!(covers(&["api"], "api"));
        assert!(covers(&["web"], "api"));
        assert!(covers(&[], "db"));
        assert!(!covers(&["web"], "db"));
        let mut windows = Windows::default();
        windows
            .set(window(&[], When::Once(10.0, 20.0)), 5.0)
            .expect("made");
        assert!(windows.end("file-1", 12.0).is_some());
        assert!(windows.end("file-1", 13.0).is_none());
        assert!(windows.of(&name("api"), &fleet(), 13.0).is_none());
    }
}
