//! Schemas that were found good: each instance sends its own again with every renewal, and compiling them each
//! time would be most of the work.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};

use alicia_schema::{Checked, SchemaFault};
use serde_json::Value;

/// Schemas that are remembered as good. When there are more, all are forgotten: they are found good anew.
const GOOD_MAX: usize = 8_192;

/// Digests of good schemas, with a key that nobody outside knows.
static GOOD: LazyLock<(RandomState, Mutex<HashSet<u64>>)> = LazyLock::new(Default::default);

/// Checks that a value is a schema that can be used.
pub(super) fn check(schema: &Value) -> Result<(), SchemaFault> {
    let (hasher, good) = &*GOOD;
    let digest = hasher.hash_one(schema.to_string());
    if good
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .contains(&digest)
    {
        return Ok(());
    }
    Checked::new(schema)?;
    let mut good = good.lock().unwrap_or_else(PoisonError::into_inner);
    if good.len() >= GOOD_MAX {
        good.clear();
    }
    good.insert(digest);
    Ok(())
}
