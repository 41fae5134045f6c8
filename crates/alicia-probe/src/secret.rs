//! Passwords and keys in files, which are read at each try, so that a new one counts at once.

use std::path::Path;

use crate::attempt::Deadline;

/// The longest secret, in bytes: longer than any token, far shorter than a file that was named by mistake.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// The first line of a file.
pub(crate) async fn read(path: &Path, deadline: &Deadline) -> Result<String, String> {
    let shown = path.display();
    let bytes = tokio::fs::read(path)
        .await
        .map_err(|error| deadline.own(error))
        .map_err(|error| format!("failed to read the secret in {shown}: {error}"))?;
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let text = std::str::from_utf8(line).map(str::trim).unwrap_or_default();
    match text.is_empty() || text.len() > SECRET_BYTES_MAX {
        true => Err(format!("there is no secret in the first line of {shown}")),
        false => Ok(text.to_owned()),
    }
}
