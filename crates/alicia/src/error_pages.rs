//! The pages of error codes, one file each in `docs/errors/`. Written by `cargo xtask gen`.

/// Code and text, in the order of the codes.
pub(crate) static ERROR_PAGES: &[(&str, &str)] = &[];
