//! Budgets: what services and groups have used up, and what follows at the limit.
//!
//! Two sources tell of tokens and cost: the agent itself (its counters) and whoever meters it (the
//! gateway). The higher of the two counts: neither adds to the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use alicia_contract::fleet::Budget;
use alicia_contract::orchestrator::{ExitCause, InstanceState, Spent};
use alicia_contract::{ServiceName, UnixSeconds};
use serde::{Deserialize, Serialize};

use super::event::{Action, Now};
use super::service::SpentOut;
use super::{Core, Owner, command};

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;
const HOUR: Duration = Duration::from_secs(3_600);
/// The part of a limit at which a warning is told.
const WARN_PART: f64 = 0.8;
/// How often running time is counted against `wall_clock`.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Messages of those who meter that are remembered, so that a repeated one counts once.
const IDS_MAX: usize = 4_096;
/// The longest id of such a message, in bytes; a longer one is not taken.
const ID_BYTES_MAX: usize = 64;
/// Restarts that are remembered of one service.
const RESTARTS_MAX: usize = 10_000;

/// What one service has used up today.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The day, counted from 1970, UTC.
    pub day: u64,
    /// As its agents tell.
    pub told: Amount,
    /// As those tell who meter.
    pub metered: Amount,
    /// Seconds that its instances ran, all together, of runs that are over.
    pub ran_s: f64,
    /// A person let it go on; until the day is over, nothing holds it back.
    #[serde(default)]
    pub waived: bool,
}

/// Tokens and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    /// Tokens.
    pub tokens: f64,
    /// US dollars.
    pub cost_usd: f64,
}

/// The accounts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: BTreeMap<ServiceName, Account>,
    /// Restarts of the last hour, by service.
    restarts: BTreeMap<ServiceName, VecDeque<Duration>>,
    ids: VecDeque<String>,
    known: BTreeSet<String>,
    deadline: Option<Duration>,
}

/// What was found to be too much, or nearly.
#[derive(Debug, Clone, PartialEq)]
struct Finding {
    words: String,
    /// 1 is the limit.
    part: f64,
    until: UnixSeconds,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new(accounts: BTreeMap<ServiceName, Account>) -> Self {
        Self {
            accounts,
            ..Self::default()
        }
    }

    /// The account of today; a new day is a clean slate. A clock that is set back takes what was used up along, and
    /// when it is put right again, that is no new day.
    fn account(&mut self, service: &ServiceName, unix: UnixSeconds) -> &mut Account {
        let today = day_of(unix);
        let account = self.accounts.entry(service.clone()).or_default();
        if account.day < today {
            *account = Account {
                day: today,
                ..Account::default()
            };
        } else if account.day > today + 1 {
            // It was far ahead: the account must not stay open until then.
            account.day = today;
        }
        account
    }

    fn is_new(&mut self, id: &str) -> bool {
        if id.is_empty() || id.len() > ID_BYTES_MAX || !self.known.insert(id.to_owned()) {
            return false;
        }
        self.ids.push_back(id.to_owned());
        if self.ids.len() > IDS_MAX
            && let Some(old) = self.ids.pop_front()
        {
            self.known.remove(&old);
        }
        true
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "days since 1970 are whole and not negative"
)]
fn day_of(unix: UnixSeconds) -> u64 {
    (unix.max(0.0) / DAY_S) as u64
}

fn end_of_day(unix: UnixSeconds) -> UnixSeconds {
    ((unix.max(0.0) / DAY_S).floor() + 1.0) * DAY_S
}

/// The parts of a budget that are nearly or wholly used up, the fullest first.
fn fullest(budget: &Budget, used: &Used, now: Now) -> Option<Finding> {
    let day_ends = end_of_day(now.unix);
    let part = |used: f64, limit: f64| {
        if limit > 0.0 {
            used / limit
        } else {
            f64::INFINITY
        }
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 tokens are more than anybody pays for"
    )]
    let tokens = budget.tokens_per_day.map(|limit| Finding {
        words: format!("{:.0} of {limit} tokens of this day", used.amount.tokens),
        part: part(used.amount.tokens, limit as f64),
        until: day_ends,
    });
    let cost = budget.cost_per_day_usd.map(|limit| Finding {
        words: format!("{:.2} of {limit:.2} $ of this day", used.amount.cost_usd),
        part: part(used.amount.cost_usd, limit),
        until: day_ends,
    });
    let clock = budget.wall_clock.map(|limit| Finding {
        words: format!("{:.0} s of {limit} of running on this day", used.ran_s),
        part: part(used.ran_s, limit.duration().as_secs_f64()),
        until: day_ends,
    });
    let restarts = budget.restarts_per_hour.map(|limit| Finding {
        words: format!("{} of {limit} restarts of an hour", used.restarts),
        // The limit may be used; one more is too much.
        part: match f64::from(used.restarts) {
            count if count > f64::from(limit) => 1.0,
            count => part(count, f64::from(limit)).min(0.99),
        },
        until: now.unix + used.oldest_restart_ends.as_secs_f64(),
    });
    [tokens, cost, clock, restarts]
        .into_iter()
        .flatten()
        .max_by(|a, b| a.part.total_cmp(&b.part))
}

/// What one service, or all of a group, used up.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    amount: Amount,
    ran_s: f64,
    restarts: u32,
    /// When the oldest restart is an hour ago.
    oldest_restart_ends: Duration,
}

// === impl Core ===

impl Core {
    /// A run told of tokens and cost that are new.
    pub(super) fn book_agent(&mut self, service: &ServiceName, tokens: f64, cost_usd: f64) {
        if (tokens <= 0.0 && cost_usd <= 0.0) || !self.has_budget(service) {
            return;
        }
        let account = self.ledger.account(service, self.now.unix);
        account.told.tokens += tokens.max(0.0);
        account.told.cost_usd += cost_usd.max(0.0);
        self.write_account(service);
        self.look_at_budgets(service);
    }

    /// Somebody who meters tells what was spent.
    pub(super) fn spent(&mut self, spent: &Spent) {
        let service = &spent.service;
        let usable = spent.cost_usd.is_finite() && spent.cost_usd >= 0.0;
        if !usable || !self.has_budget(service) || !self.ledger.is_new(&spent.id) {
            return;
        }
        let account = self.ledger.account(service, self.now.unix);
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 tokens are more than anybody pays for"
        )]
        let tokens = spent.tokens as f64;
        account.metered.tokens += tokens;
        account.metered.cost_usd += spent.cost_usd;
        self.write_account(service);
        self.look_at_budgets(service);
    }

    /// A restart that nobody asked for. `true`: that was one too many.
    pub(super) fn book_restart(&mut self, service: &ServiceName) -> bool {
        if !self.has_budget(service) {
            return false;
        }
        let now = self.now.monotonic;
        let restarts = self.ledger.restarts.entry(service.clone()).or_default();
        restarts.push_back(now);
        if restarts.len() > RESTARTS_MAX {
            restarts.pop_front();
        }
        self.look_at_budgets(service);
        self.services
            .get(service)
            .is_some_and(|service| service.spent_out.is_some())
    }

    /// A run is over: its time counts.
    pub(super) fn book_run(&mut self, service: &ServiceName, started: Duration) {
        if !self.has_budget(service) {
            return;
        }
        let ran_s = self.of_today(started);
        self.ledger.account(service, self.now.unix).ran_s += ran_s;
        self.write_account(service);
    }

    /// The seconds of a run that fall into this day.
    fn of_today(&self, started: Duration) -> f64 {
        let ran_s = self.now.monotonic.saturating_sub(started).as_secs_f64();
        let today_s = self.now.unix.max(0.0) % DAY_S;
        ran_s.min(today_s)
    }

    fn write_account(&mut self, service: &ServiceName) {
        let account = self.ledger.account(service, self.now.unix).clone();
        self.revision += 1;
        self.actions
            .push(Action::Account(service.clone(), Box::new(account)));
    }

    fn has_budget(&self, service: &ServiceName) -> bool {
        let Some(found) = self.services.get(service) else {
            return false;
        };
        found.spec.budget.is_some() || !self.budget_groups(service).is_empty()
    }

    /// The groups with a budget that a service is in, directly or not.
    fn budget_groups(&self, service: &ServiceName) -> Vec<ServiceName> {
        let Some(found) = self.services.get(service) else {
            return Vec::new();
        };
        self.fleet
            .groups
            .iter()
            .filter(|(_, spec)| spec.budget.is_some())
            .map(|(name, _)| name)
            .filter(|name| {
                let below = self.groups_below(name);
                found.spec.groups.iter().any(|group| below.contains(group))
            })
            .cloned()
            .collect()
    }

    fn members(&self, group: &ServiceName) -> Vec<ServiceName> {
        let below = self.groups_below(group);
        self.services
            .iter()
            .filter(|(_, service)| service.spec.groups.iter().any(|name| below.contains(name)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn used_by(&mut self, services: &[ServiceName]) -> Used {
        let now = self.now;
        let mut used = Used::default();
        for name in services {
            let account = self.ledger.account(name, now.unix).clone();
            used.amount.tokens += account.told.tokens.max(account.metered.tokens);
            used.amount.cost_usd += account.told.cost_usd.max(account.metered.cost_usd);
            used.ran_s += account.ran_s;
            let running = self.services.get(name).into_iter().flat_map(|service| {
                let runs = service.slots.values().filter_map(|slot| slot.run.as_ref());
                runs.filter(|run| run.process.is_some())
                    .map(|run| run.started)
                    .collect::<Vec<_>>()
            });
            used.ran_s += running.map(|started| self.of_today(started)).sum::<f64>();
            if let Some(restarts) = self.ledger.restarts.get_mut(name) {
                restarts.retain(|at| now.monotonic.saturating_sub(*at) < HOUR);
                used.restarts += u32::try_from(restarts.len()).unwrap_or(u32::MAX);
                let oldest = restarts.front().map(|at| *at + HOUR);
                let ends = oldest.map(|at| at.saturating_sub(now.monotonic));
                used.oldest_restart_ends = used.oldest_restart_ends.max(ends.unwrap_or_default());
            }
        }
        used
    }

    /// Looks at the budget of a service and at those of its groups.
    fn look_at_budgets(&mut self, service: &ServiceName) {
        self.look_at(service, std::slice::from_ref(service), None);
        for group in self.budget_groups(service) {
            let members = self.members(&group);
            self.look_at(service, &members, Some(&group));
        }
        self.set_budget_timer();
    }

    fn look_at(
        &mut self,
        service: &ServiceName,
        members: &[ServiceName],
        group: Option<&ServiceName>,
    ) {
        let now = self.now;
        let budget = match group {
            None => self
                .services
                .get(service)
                .and_then(|s| s.spec.budget.clone()),
            Some(group) => self.fleet.groups.get(group).and_then(|g| g.budget.clone()),
        };
        let Some(budget) = budget else { return };
        let used = self.used_by(members);
        let Some(found) = fullest(&budget, &used, now) else {
            return;
        };
        let whose = group.map_or_else(|| "its budget".to_owned(), |g| format!("the budget of {g}"));
        for name in members {
            if self.ledger.account(name, now.unix).waived {
                continue;
            }
            if found.part >= 1.0 {
                let reason = format!("{whose} is used up: {}", found.words);
                self.spend_out(name, reason, found.until);
            } else if found.part >= WARN_PART {
                self.warn_of_budget(name, format!("{whose} is nearly used up: {}", found.words));
            }
        }
    }

    fn spend_out(&mut self, name: &ServiceName, reason: String, until: UnixSeconds) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        if service.spent_out.is_none() {
            service.spent_out = Some(SpentOut { reason, until });
            self.touch(name);
        }
    }

    fn warn_of_budget(&mut self, name: &ServiceName, words: String) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let is_new = service.spent_soon.is_none();
        service.spent_soon = Some(words.clone());
        if !is_new {
            return;
        }
        let running = command::ids(name, service).into_iter().find(|id| {
            let slot = service.slots.get(&id.slot);
            slot.is_some_and(|slot| slot.state == InstanceState::Running)
        });
        if let Some(id) = running {
            self.note(&id, words, ExitCause::Budget);
        }
    }

    /// A person lets it go on although its budget is used up.
    pub(super) fn waive_budget(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        if service.spent_out.take().is_some() {
            self.ledger.account(name, self.now.unix).waived = true;
            self.ledger.restarts.remove(name);
            self.write_account(name);
            self.touch(name);
        }
    }

    /// Sets the next look: soon while running time counts, else when a period ends.
    fn set_budget_timer(&mut self) {
        let now = self.now;
        let counts_time = self.services.values().any(|service| {
            service
                .spec
                .budget
                .as_ref()
                .is_some_and(|b| b.wall_clock.is_some())
        }) || self.fleet.groups.values().any(|group| {
            group
                .budget
                .as_ref()
                .is_some_and(|b| b.wall_clock.is_some())
        });
        let held = self
            .services
            .values()
            .any(|s| s.spent_out.is_some() || s.spent_soon.is_some());
        let wait = if counts_time || held {
            LOOK_EVERY
        } else {
            Duration::try_from_secs_f64(end_of_day(now.unix) - now.unix).unwrap_or(HOUR)
        };
        let at = now.monotonic + wait;
        if self
            .ledger
            .deadline
            .is_none_or(|old| old > at || old <= now.monotonic)
        {
            self.ledger.deadline = Some(at);
            self.timers.insert((at, Owner::Budgets));
        }
    }

    /// The file changed, or the host started: budgets are looked at from now on.
    pub(super) fn begin_budgets(&mut self) {
        let names: Vec<ServiceName> = self
            .services
            .keys()
            .filter(|name| self.has_budget(name))
            .cloned()
            .collect();
        for name in &names {
            self.look_at_budgets(name);
        }
        let without: Vec<ServiceName> = self
            .services
            .iter()
            .filter(|(name, service)| service.spent_out.is_some() && !names.contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in without {
            self.end_spent_out(&name);
        }
    }

    pub(super) fn budgets_due(&mut self, at: Duration) {
        if self.ledger.deadline != Some(at) {
            return;
        }
        self.ledger.deadline = None;
        let unix = self.now.unix;
        let over: Vec<ServiceName> = self
            .services
            .iter()
            .filter(|(_, service)| {
                service
                    .spent_out
                    .as_ref()
                    .is_some_and(|out| out.until <= unix)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            self.end_spent_out(&name);
        }
        for service in self.services.values_mut() {
            service.spent_soon = None;
        }
        self.begin_budgets();
    }

    /// The period of a budget is over: those that were parked for it start by their own timers.
    fn end_spent_out(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.get_mut(name) {
            service.spent_out = None;
        }
        self.touch(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(budget: serde_json::Value, used: &Used) -> Option<(f64, UnixSeconds)> {
        let budget = serde_json::from_value(budget).expect("a budget");
        let now = Now {
            monotonic: Duration::from_secs(10),
            unix: DAY_S * 3.5,
        };
        fullest(&budget, used, now).map(|found| (found.part, found.until))
    }

    #[test]
    fn the_fullest_part_decides_and_says_until_when() {
        let used = Used {
            amount: Amount {
                tokens: 50.0,
                cost_usd: 9.0,
            },
            ran_s: 30.0,
            restarts: 3,
            oldest_restart_ends: Duration::from_secs(60),
        };
        let check = |budget, expected| assert_eq!(found(budget, &used), expected);
        check(json!({}), None);
        check(json!({"tokens_per_day": 100}), Some((0.5, DAY_S * 4.0)));
        check(
            json!({"tokens_per_day": 0}),
            Some((f64::INFINITY, DAY_S * 4.0)),
        );
        check(
            json!({"tokens_per_day": 100, "cost_per_day_usd": 10.0}),
            Some((0.9, DAY_S * 4.0)),
        );
        check(json!({"wall_clock": "30s"}), Some((1.0, DAY_S * 4.0)));
        check(
            json!({"restarts_per_hour": 3}),
            Some((0.99, DAY_S * 3.5 + 60.0)),
        );
        check(
            json!({"restarts_per_hour": 2}),
            Some((1.0, DAY_S * 3.5 + 60.0)),
        );
    }

    #[test]
    fn a_new_day_is_a_clean_slate_and_a_repeated_message_counts_once() {
        let name = ServiceName::new("a").expect("a name");
        let mut ledger = Ledger::default();
        ledger.account(&name, DAY_S * 2.0).told.tokens = 5.0;
        assert_eq!(ledger.account(&name, DAY_S * 2.9).told.tokens, 5.0);
        assert_eq!(ledger.account(&name, DAY_S * 3.0).told.tokens, 0.0);
        // A clock that is set gives no second day, and one that was far ahead keeps none open.
        ledger.account(&name, DAY_S * 5.0).told.tokens = 7.0;
        for day in [4.5, 5.5] {
            assert_eq!(ledger.account(&name, DAY_S * day).told.tokens, 7.0, "{day}");
        }
        ledger.account(&name, DAY_S * 2_000.0).told.tokens = 9.0;
        assert_eq!(ledger.account(&name, DAY_S * 6.0).told.tokens, 9.0);
        assert_eq!(ledger.account(&name, DAY_S * 7.0).told.tokens, 0.0);
        assert!(ledger.is_new("x"));
        assert!(!ledger.is_new("x"));
        assert!(!ledger.is_new(""));
        assert!(!ledger.is_new(&"x".repeat(65)));
        for n in 0..IDS_MAX {
            assert!(ledger.is_new(&format!("n{n}")));
        }
        assert!(ledger.is_new("x"), "forgotten");
        assert!(ledger.known.len() <= IDS_MAX + 1);
    }
}
