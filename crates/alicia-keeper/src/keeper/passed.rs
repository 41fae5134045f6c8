//! Small files in memory that a child inherits: sealed, so that nobody changes them, and closed in the
//! keeper once the child is made.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::protocol::{Failure, FailureCode, PassedFile, is_name};

/// First part of the variables that name the descriptors.
pub(super) const PREFIX: &str = "ALICIA_FD_";
/// Keys, credentials, a configuration: more than these is a mistake.
const FILES_MAX: usize = 16;
/// The content of one file. It costs memory until the last process that holds it ends.
const BYTES_MAX: usize = 64 * 1024;

/// What can be said before anything is made.
pub(super) fn check(files: &[PassedFile]) -> Result<(), Failure> {
    if files.len() > FILES_MAX {
        return Err(invalid(format!("at most {FILES_MAX} can be passed")));
    }
    let mut names = BTreeSet::new();
    for PassedFile { name, .. } in files {
        if !is_name(name) {
            let text = format!("\"{name}\" is no name: [a-z0-9-], 1 to 63 characters");
            return Err(invalid(text));
        }
        if !names.insert(name) {
            return Err(invalid(format!("\"{name}\" is there twice")));
        }
    }
    Ok(())
}

/// `identity-key` is found by `ALICIA_FD_IDENTITY_KEY`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// The files, in order.
pub(super) fn make(files: &[PassedFile]) -> Result<Vec<OwnedFd>, Failure> {
    files.iter().map(make_one).collect()
}

fn make_one(PassedFile { name, content }: &PassedFile) -> Result<OwnedFd, Failure> {
    let content = STANDARD
        .decode(content)
        .map_err(|_| invalid(format!("the content of \"{name}\" is not base64")))?;
    if content.len() > BYTES_MAX {
        let length = content.len();
        let text = format!("\"{name}\" has {length} bytes, the limit is {BYTES_MAX}");
        return Err(invalid(text));
    }
    seal(&content).map_err(|error| {
        let message = format!("the file \"{name}\" cannot be made: {error}");
        Failure::system(message, &error)
    })
}

fn seal(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"alicia-passed", flags)?);
    file.write_all(content)?;
    file.rewind()?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

fn invalid(text: String) -> Failure {
    Failure::new(FailureCode::InvalidRequest, format!("passed: {text}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn file(name: &str, content: &str) -> PassedFile {
        PassedFile {
            name: name.into(),
            content: content.into(),
        }
    }

    #[test]
    fn a_file_can_be_read_and_no_longer_changed() {
        let mut made = make(&[file("a", "c2VjcmV0")]).unwrap();
        let mut made = File::from(made.remove(0));
        let mut text = String::new();
        made.read_to_string(&mut text).unwrap();
        assert_eq!(text, "secret");
        assert!(made.write_all(b"x").is_err());
        assert!(made.set_len(0).is_err());
        assert_eq!(variable("identity-key"), "ALICIA_FD_IDENTITY_KEY");
    }

    #[test]
    fn what_cannot_be_passed_is_refused_without_its_content() {
        let check_all = |files: &[PassedFile], text: &str| {
            let failure = check(files)
                .and_then(|()| make(files).map(drop))
                .unwrap_err();
            assert_eq!(failure.code, FailureCode::InvalidRequest);
            assert!(failure.message.contains(text), "{failure}");
            assert!(!failure.message.contains("secret"), "{failure}");
        };
        check_all(&[file("A", "")], "\"A\"");
        check_all(&[file("a", ""), file("a", "")], "twice");
        check_all(&[file("a", "secret!")], "base64");
        check_all(&[file("a", &STANDARD.encode([0; BYTES_MAX + 1]))], "65537");
        check_all(&vec![file("a", ""); FILES_MAX + 1], "16");
        assert!(!format!("{:?}", file("a", "secret")).contains("secret"));
    }
}
