//! What a key of limited scope, or an outside agent, may do: pure answers from a list of scopes.

use std::sync::Arc;

use alicia_contract::identity::Grant;
use alicia_contract::platform::Scope;

/// More scopes than this on one key or agent are a mistake.
pub const GRANTS_MAX: usize = 64;

/// The verb of every operation that only reads.
pub const READ: &str = "read";

/// A list of scopes. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Grants(Arc<[Grant]>);

impl Grants {
    /// These scopes, each once.
    #[must_use]
    pub fn new(mut grants: Vec<Grant>) -> Self {
        grants.sort();
        grants.dedup();
        Self(grants.into())
    }

    /// The scopes.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }

    /// Whether they hold this step of the ladder, or a higher one.
    #[must_use]
    pub fn has_scope(&self, needed: Scope) -> bool {
        self.0
            .iter()
            .filter_map(ladder)
            .any(|scope| scope >= needed)
    }

    /// Whether they hold this verb of this module. Whoever may do all of a module may read it too.
    #[must_use]
    pub fn may(&self, module: &str, verb: &str) -> bool {
        self.0
            .iter()
            .filter_map(Grant::parts)
            .any(|(granted, word)| granted == module && (word == "*" || word == verb))
    }
}

/// The step of the ladder that a scope is.
pub(crate) fn ladder(grant: &Grant) -> Option<Scope> {
    match grant.as_str() {
        "read" => Some(Scope::Read),
        "operate" => Some(Scope::Operate),
        "admin" => Some(Scope::Admin),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_grants_what_it_names_and_nothing_else() {
        let grants = |texts: &[&str]| {
            Grants::new(
                texts
                    .iter()
                    .map(|text| text.parse().expect("a scope"))
                    .collect(),
            )
        };
        let some = grants(&["orchestrator:restart", "registry:*"]);
        assert!(some.may("orchestrator", "restart") && some.may("registry", "read"));
        assert!(!some.may("orchestrator", "stop") && !some.may("orchestrator", "*"));
        assert!(!some.has_scope(Scope::Read));
        assert!(grants(&["operate"]).has_scope(Scope::Read));
        assert!(!grants(&["operate"]).has_scope(Scope::Admin));
        assert!(!Grants::default().may("", ""));
    }
}
