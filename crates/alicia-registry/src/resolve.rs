//! The best instances for a wanted capability, and a reason for every candidate. Pure: reads the state, changes
//! nothing, waits for nothing.
//!
//! What instances say of a capability is looked at once per *offer* (see `core::offers`); within an offer its
//! members stand in the order in which they are to be chosen. So the work is that of the offers and of what is
//! listed, not of the number of instances.

mod reasons;
mod search;

use std::collections::BTreeSet;

use alicia_contract::discovery::{
    CANDIDATES_DEFAULT, CANDIDATES_MAX, CHOICES_DEFAULT, CHOICES_MAX, Preference, Resolution,
    Verdict, Wanted,
};
use alicia_contract::id::InstanceId;
use alicia_contract::problem::InputFault;
use alicia_schema::{Checked, SchemaFault};
use semver::VersionReq;

use crate::core::{Entry, Offer, Registry};
use search::Search;

/// Most tags that are asked for.
const TAGS_MAX: usize = 32;

/// Longest range of versions, in bytes.
const RANGE_BYTES_MAX: usize = 256;

/// What decides between instances that all fit and are equally well, unless said otherwise; what is not named
/// follows in this order.
const PREFER: [Preference; 4] = [
    Preference::Load,
    Preference::Cost,
    Preference::Latency,
    Preference::Version,
];

/// What is wanted, checked and read.
#[derive(Debug)]
pub struct Query {
    wanted: Wanted,
    range: Option<VersionReq>,
    prefer: Vec<Preference>,
    limit: usize,
    explain: usize,
}

// === impl Query ===

impl Query {
    /// Checks what is wanted.
    ///
    /// # Errors
    /// Every fault, by JSON pointer.
    pub fn new(wanted: Wanted) -> Result<Self, Vec<InputFault>> {
        let mut faults = Vec::new();
        let mut fault = |pointer: &str, message: String| {
            faults.push(InputFault {
                pointer: pointer.to_owned(),
                message,
            });
        };
        let range = wanted.version.as_deref().map(read_range).transpose();
        let range = range.unwrap_or_else(|message| {
            fault("/version", message);
            None
        });
        if wanted.tags.len() > TAGS_MAX {
            let found = wanted.tags.len();
            fault(
                "/tags",
                format!("found {found} tags, expected at most {TAGS_MAX}"),
            );
        }
        let mut number = |pointer: &str, given: Option<u32>, least: u32, most: u32, or: u32| {
            let given = given.unwrap_or(or);
            if !(least..=most).contains(&given) {
                fault(
                    pointer,
                    format!("found {given}, expected {least} to {most}"),
                );
            }
            given as usize
        };
        let limit = number("/limit", wanted.limit, 1, CHOICES_MAX, CHOICES_DEFAULT);
        let explain = number(
            "/explain",
            wanted.explain,
            0,
            CANDIDATES_MAX,
            CANDIDATES_DEFAULT,
        );
        let schema = wanted.input_schema.as_ref().map(Checked::new);
        if let Some(Err(SchemaFault { pointer, message })) = schema {
            fault(&format!("/input_schema{pointer}"), message);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut prefer = wanted.prefer.clone();
        prefer.extend(PREFER);
        let mut seen = Vec::new();
        prefer.retain(|one| {
            let is_new = !seen.contains(one);
            seen.push(*one);
            is_new
        });
        Ok(Self {
            wanted,
            range,
            prefer,
            limit,
            explain,
        })
    }

    /// What is wanted.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }
}

/// Reads a range of versions; why not, in words.
///
/// # Errors
/// What was found and what was expected.
pub fn read_range(text: &str) -> Result<VersionReq, String> {
    if text.len() > RANGE_BYTES_MAX {
        let found = text.len();
        return Err(format!(
            "found {found} bytes, expected at most {RANGE_BYTES_MAX}"
        ));
    }
    VersionReq::parse(text).map_err(|error| {
        format!("found {text:?}, expected a range such as ^1.2 or >=1, <3: {error}")
    })
}

/// Who may be chosen, beyond what fits: what a call needs.
pub trait Admission {
    /// Why no member of this offer may be chosen; `None`: see the single ones.
    fn refuses_offer(&self, offer: &Offer) -> Option<(Verdict, String)>;
    /// Why this one may not be chosen.
    fn refuses(&self, entry: &Entry) -> Option<(Verdict, String)>;
}

/// Everybody may be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Anybody;

impl Admission for Anybody {
    fn refuses_offer(&self, _: &Offer) -> Option<(Verdict, String)> {
        None
    }

    fn refuses(&self, _: &Entry) -> Option<(Verdict, String)> {
        None
    }
}

/// The answer to a question.
#[must_use]
pub fn resolve(registry: &Registry, query: &Query) -> Resolution {
    Search::new(registry, query, &Anybody, &BTreeSet::new()).resolution()
}

/// The answer for one who wants to call; `tried` are instances that are not to be asked again.
#[must_use]
pub fn admit(
    registry: &Registry,
    query: &Query,
    admission: &dyn Admission,
    tried: &BTreeSet<InstanceId>,
) -> Resolution {
    Search::new(registry, query, admission, tried).resolution()
}

#[cfg(test)]
mod tests;
