//! Silences: nobody is notified of alerts that fit, from a start to an end. One that is over is kept for a
//! while, to be seen and to be made again.

use std::collections::BTreeMap;

use alicia_contract::health::{Matcher, Phase, Silence};
use alicia_contract::unit::UnixSeconds;

use super::matcher::{Compiled, Labels, MATCHERS_MAX, all_hold};

/// Most silences at a time.
pub const SILENCES_MAX: usize = 1_000;

/// How long one that is over is kept: what Alertmanager keeps, 120 hours.
pub const KEPT_S: f64 = 120.0 * 3_600.0;

/// Longest silence: a year. One that is longer is a rule that should be changed.
const SILENCE_S_MAX: f64 = 366.0 * 86_400.0;

/// Longest comment, in characters.
pub const COMMENT_CHARS_MAX: usize = 1_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The silence to be changed; none: a new one.
    pub id: Option<String>,
    /// All must hold.
    pub matchers: Vec<Matcher>,
    /// From when.
    pub starts: UnixSeconds,
    /// Until when.
    pub ends: UnixSeconds,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: String,
}

/// Every silence that is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Silences(BTreeMap<String, Held>);

#[derive(Debug, Clone, PartialEq)]
struct Held {
    silence: Silence,
    matchers: Vec<Compiled>,
}

// === impl Silences ===

impl Silences {
    /// Takes one that was stored. One that cannot be used any more is not taken.
    pub fn restore(&mut self, silence: Silence) {
        let matchers: Result<_, _> = compile(&silence.matchers);
        if let Ok(matchers) = matchers {
            self.0
                .insert(silence.id.clone(), Held { silence, matchers });
        }
    }

    /// Makes or changes one. `id` names a new one. As in Alertmanager, one whose matchers change, or that is
    /// over, is ended and another made.
    ///
    /// # Errors
    /// In words: what cannot be used, and what was expected.
    pub fn set(
        &mut self,
        wanted: Wanted,
        id: String,
        now: UnixSeconds,
    ) -> Result<Vec<Silence>, String> {
        let matchers = check(&wanted, now)?;
        let mut changed = Vec::new();
        let before = match &wanted.id {
            None => None,
            Some(known) => {
                let held = self.0.get(known);
                Some(held.ok_or_else(|| format!("there is no silence {known}"))?)
            }
        };
        // One that is in use is changed, or ends and gives way.
        let is_more = before.is_none_or(|held| held.silence.ends <= now);
        if is_more && self.in_use(now) >= SILENCES_MAX {
            return Err(format!(
                "there are {SILENCES_MAX} silences already; end some first"
            ));
        }
        let same = before
            .filter(|held| held.silence.matchers == wanted.matchers && held.silence.ends > now);
        let id = match (same, before) {
            (Some(held), _) => held.silence.id.clone(),
            (None, Some(held)) => {
                let other = held.silence.id.clone();
                changed.extend(self.expire(&other, now));
                id
            }
            (None, None) => id,
        };
        if !self.0.contains_key(&id) {
            self.make_room(now);
        }
        let silence = Silence {
            id: id.clone(),
            matchers: wanted.matchers,
            starts: wanted.starts,
            ends: wanted.ends,
            by: wanted.by,
            comment: wanted.comment,
            updated: now,
            phase: phase(wanted.starts, wanted.ends, now),
        };
        let held = Held {
            silence: silence.clone(),
            matchers,
        };
        self.0.insert(id, held);
        changed.push(silence);
        Ok(changed)
    }

    /// Ends one now. `None`: there is none, or it is over.
    pub fn expire(&mut self, id: &str, now: UnixSeconds) -> Option<Silence> {
        let silence = &mut self.0.get_mut(id)?.silence;
        if silence.ends <= now {
            return None;
        }
        silence.ends = now;
        silence.starts = silence.starts.min(now);
        silence.updated = now;
        silence.phase = Phase::Expired;
        Some(silence.clone())
    }

    /// Those in force and to come.
    fn in_use(&self, now: UnixSeconds) -> usize {
        let silences = self.0.values().map(|held| &held.silence);
        silences.filter(|silence| silence.ends > now).count()
    }

    /// Of those that are over, the one that ended first gives way.
    fn make_room(&mut self, now: UnixSeconds) {
        if self.0.len() < SILENCES_MAX {
            return;
        }
        let silences = self.0.values().map(|held| &held.silence);
        let over = silences.filter(|silence| silence.ends <= now);
        let oldest = over.min_by(|a, b| a.ends.total_cmp(&b.ends));
        if let Some(id) = oldest.map(|silence| silence.id.clone()) {
            self.0.remove(&id);
        }
    }

    /// Drops those that were over long ago.
    pub fn forget(&mut self, now: UnixSeconds) {
        self.0.retain(|_, held| held.silence.ends + KEPT_S > now);
    }

    /// The first in force that fits these labels.
    #[must_use]
    pub fn of(&self, labels: &Labels, now: UnixSeconds) -> Option<&Silence> {
        let in_force = |held: &&Held| held.silence.starts <= now && now < held.silence.ends;
        self.0
            .values()
            .filter(in_force)
            .find(|held| all_hold(&held.matchers, labels))
            .map(|held| &held.silence)
    }

    /// One, as it is now.
    #[must_use]
    pub fn get(&self, id: &str, now: UnixSeconds) -> Option<Silence> {
        self.0.get(id).map(|held| as_of(held, now))
    }

    /// All, those in force first, then those to come, then those that are over, each by their end.
    #[must_use]
    pub fn list(&self, now: UnixSeconds) -> Vec<Silence> {
        let mut all: Vec<Silence> = self.0.values().map(|held| as_of(held, now)).collect();
        let rank = |silence: &Silence| match silence.phase {
            Phase::Active => 0,
            Phase::Pending => 1,
            Phase::Expired => 2,
        };
        all.sort_by(|a, b| (rank(a).cmp(&rank(b))).then(a.ends.total_cmp(&b.ends)));
        all
    }
}

fn as_of(held: &Held, now: UnixSeconds) -> Silence {
    let mut silence = held.silence.clone();
    silence.phase = phase(silence.starts, silence.ends, now);
    silence
}

/// Where something with a start and an end is in its life.
#[must_use]
pub fn phase(starts: UnixSeconds, ends: UnixSeconds, now: UnixSeconds) -> Phase {
    match () {
        () if now >= ends => Phase::Expired,
        () if now < starts => Phase::Pending,
        () => Phase::Active,
    }
}

fn compile(matchers: &[Matcher]) -> Result<Vec<Compiled>, String> {
    matchers.iter().cloned().map(Compiled::new).collect()
}

fn check(wanted: &Wanted, now: UnixSeconds) -> Result<Vec<Compiled>, String> {
    let matchers = compile(&wanted.matchers)?;
    if matchers.len() > MATCHERS_MAX {
        let found = matchers.len();
        return Err(format!(
            "found {found} matchers, expected at most {MATCHERS_MAX}"
        ));
    }
    // One that fits an alert without labels would silence everything.
    if all_hold(&matchers, &Labels::new()) {
        return Err(
            "expected at least one matcher that does not fit the empty text; this would silence everything"
                .to_owned(),
        );
    }
    let span = wanted.ends - wanted.starts;
    if !(wanted.starts.is_finite() && wanted.ends.is_finite()) || span <= 0.0 {
        return Err("the end is not after the start".to_owned());
    }
    if wanted.ends <= now {
        return Err("the end is in the past".to_owned());
    }
    if span > SILENCE_S_MAX {
        return Err("expected at most 366 days; change the rule instead".to_owned());
    }
    if wanted.comment.chars().count() > COMMENT_CHARS_MAX {
        return Err(format!(
            "the comment has more than {COMMENT_CHARS_MAX} characters"
        ));
    }
    Ok(matchers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::matcher::parse;

    fn wanted(matchers: &[&str], starts: f64, ends: f64) -> Wanted {
        Wanted {
            id: None,
            matchers: matchers
                .iter()
                .map(|text| parse(text).expect("reads"))
                .collect(),
            starts,
            ends,
            by: "key/bob".to_owned(),
            comment: "moving the rack".to_owned(),
        }
    }

    fn labels(service: &str) -> Labels {
        [("service".to_owned(), service.to_owned())].into()
    }

    #[test]
    fn it_holds_from_its_start_to_its_end_for_what_fits() {
        let mut silences = Silences::default();
        let made = silences.set(wanted(&["service=api"], 10.0, 20.0), "1".to_owned(), 5.0);
        assert_eq!(made.expect("made")[0].phase, Phase::Pending);
        let holds = |service: &str, now: f64| silences.of(&labels(service), now).is_some();
        assert!(!holds("api", 9.0));
        assert!(holds("api", 10.0));
        assert!(holds("api", 19.9));
        assert!(!holds("db", 15.0));
        assert!(!holds("api", 20.0));
        assert_eq!(silences.list(30.0)[0].phase, Phase::Expired);
        let mut later = silences.clone();
        later.forget(20.0 + KEPT_S + 1.0);
        assert_eq!(later.list(30.0), []);
    }

    #[test]
    fn ended_early_it_holds_no_more_and_cannot_be_ended_twice() {
        let mut silences = Silences::default();
        let made = silences.set(wanted(&["service=api"], 0.0, 20.0), "1".to_owned(), 5.0);
        made.expect("made");
        assert!(silences.expire("nosuch", 6.0).is_none());
        assert!(silences.expire("1", 6.0).is_some());
        assert!(silences.expire("1", 7.0).is_none());
        assert!(silences.of(&labels("api"), 7.0).is_none());
    }

    #[test]
    fn a_change_of_its_times_keeps_the_id_and_another_condition_makes_another() {
        let mut silences = Silences::default();
        silences
            .set(wanted(&["service=api"], 0.0, 20.0), "1".to_owned(), 5.0)
            .expect("made");
        let longer = Wanted {
            id: Some("1".to_owned()),
            ..wanted(&["service=api"], 0.0, 90.0)
        };
        let changed = silences.set(longer, "2".to_owned(), 6.0).expect("changed");
        assert_eq!(
            (changed.len(), changed[0].id.as_str(), changed[0].ends),
            (1, "1", 90.0)
        );
        let other = Wanted {
            id: Some("1".to_owned()),
            ..wanted(&["service=db"], 0.0, 90.0)
        };
        let changed = silences.set(other, "3".to_owned(), 7.0).expect("changed");
        let ids: Vec<_> = changed
            .iter()
            .map(|silence| (silence.id.as_str(), silence.phase))
            .collect();
        assert_eq!(ids, [("1", Phase::Expired), ("3", Phase::Active)]);
        let nosuch = Wanted {
            id: Some("9".to_owned()),
            ..wanted(&["service=db"], 0.0, 90.0)
        };
        assert!(silences.set(nosuch, "4".to_owned(), 8.0).is_err());
    }

    #[test]
    fn those_that_are_over_give_way_to_new_ones() {
        let mut silences = Silences::default();
        for n in 0..SILENCES_MAX {
            let ends = if n < 2 { 20.0 } else { 1_000.0 };
            silences
                .set(wanted(&["service=api"], 0.0, ends), n.to_string(), 5.0)
                .expect("made");
        }
        let one_more = |silences: &mut Silences, id: &str, now: f64| {
            silences.set(wanted(&["service=db"], now, 900.0), id.to_owned(), now)
        };
        let full = one_more(&mut silences, "more", 10.0).expect_err("all are in use");
        assert!(full.contains("end some first"), "{full}");
        for id in ["a", "b"] {
            one_more(&mut silences, id, 30.0).expect("two are over");
        }
        one_more(&mut silences, "c", 30.0).expect_err("no more are");
        assert_eq!(silences.list(30.0).len(), SILENCES_MAX);
        // One that is in use can still be changed, also into another.
        let other = Wanted {
            id: Some("5".to_owned()),
            ..wanted(&["service=db"], 0.0, 900.0)
        };
        silences.set(other, "d".to_owned(), 31.0).expect("changed");
        assert!(
            silences.get("7", 31.0).is_some(),
            "none in use is forgotten"
        );
    }

    #[test]
    fn what_would_silence_everything_or_nothing_is_refused() {
        let mut silences = Silences::default();
        let mut check = |matchers: &[&str], starts: f64, ends: f64, part: &str| {
            let error = silences.set(wanted(matchers, starts, ends), "1".to_owned(), 5.0);
            let error = error.expect_err(part);
            assert!(error.contains(part), "{error}");
        };
        check(&[], 0.0, 10.0, "everything");
        check(&["service=~.*"], 0.0, 10.0, "everything");
        check(&["service=api"], 10.0, 10.0, "not after");
        check(&["service=api"], 0.0, 4.0, "past");
        check(&["service=api"], 0.0, f64::NAN, "not after");
        check(&["service=api"], 0.0, 1e9, "366 days");
    }
}
