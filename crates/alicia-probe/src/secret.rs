//! Files that a try needs: passwords, keys, certificates. They are read at each try, so that a new one counts at once.

use std::io;
use std::path::Path;

use alicia_contract::ByteSize;
use tokio::io::AsyncReadExt as _;

use crate::attempt::Deadline;

/// The largest file, in bytes: a few hundred certificates. What never ends, such as a device, is no file for a try.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest secret, in bytes: longer than any token, far shorter than a file that was named by mistake.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// A whole file; `what` is in it. A pipe that nobody writes to ends with the try.
pub(crate) async fn read_file(
    what: &str,
    path: &Path,
    deadline: &Deadline,
) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let missing = format!("no end of the file {shown}");
    let bytes = deadline.within(&missing, bounded(path)).await?;
    let bytes = bytes
        .map_err(|error| deadline.own(error))
        .map_err(|error| format!("failed to read {what} {shown}: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "{shown} is larger than {}",
            ByteSize(FILE_BYTES_MAX)
        ));
    }
    Ok(bytes)
}

async fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}

/// The first line of a file.
pub(crate) async fn read(path: &Path, deadline: &Deadline) -> Result<String, String> {
    let shown = path.display();
    let bytes = read_file("the secret in", path, deadline).await?;
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
