//! Becoming another program in place.

use super::Keeper;
use super::instance::Asker;
use crate::protocol::{Failure, FailureCode};

impl Keeper {
    pub(super) fn upgrade(
        &mut self,
        _asker: Asker,
        _program: &str,
        _arguments: Vec<String>,
    ) -> Result<(), Failure> {
        Err(Failure::new(FailureCode::UpgradeFailed, "to be written"))
    }
}
