//! What a child inherits beside sockets: directories, as places, and small files in memory, sealed so that nobody
//! changes them. All are closed in the keeper once the child is made.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open};

use crate::protocol::{Failure, FailureCode, PassedDirectory, PassedFile, StartSpec, is_name};

/// First part of the variables that name the descriptors.
pub(super) const PREFIX: &str = "ALICIA_FD_";
/// Keys, credentials, a configuration: more than these is a mistake.
const FILES_MAX: usize = 16;
/// Credentials, a directory that stays.
const DIRECTORIES_MAX: usize = 4;
/// The content of one file. It costs memory until the last process that holds it ends.
const BYTES_MAX: usize = 64 * 1024;

/// The names of what is passed, in order.
pub(super) fn names(spec: &StartSpec) -> impl Iterator<Item = &String> {
    let directories = spec.directories.iter().map(|it| &it.name);
    directories.chain(spec.passed.iter().map(|it| &it.name))
}

/// What can be said before anything is made.
pub(super) fn check(spec: &StartSpec) -> Result<(), Failure> {
    if spec.passed.len() > FILES_MAX || spec.directories.len() > DIRECTORIES_MAX {
        return Err(invalid(format!(
            "at most {DIRECTORIES_MAX} directories and {FILES_MAX} files can be passed"
        )));
    }
    let mut seen = BTreeSet::new();
    for name in names(spec) {
        if !is_name(name) {
            let text = format!("\"{name}\" is no name: [a-z0-9-], 1 to 63 characters");
            return Err(invalid(text));
        }
        if !seen.insert(name) {
            return Err(invalid(format!("\"{name}\" is there twice")));
        }
    }
    Ok(())
}

/// `identity-key` is found by `ALICIA_FD_IDENTITY_KEY`.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// Directories and files, in order.
pub(super) fn make(spec: &StartSpec) -> Result<Vec<OwnedFd>, Failure> {
    let directories = spec.directories.iter().map(open_one);
    directories
        .chain(spec.passed.iter().map(make_one))
        .collect()
}

fn open_one(PassedDirectory { name, path }: &PassedDirectory) -> Result<OwnedFd, Failure> {
    if !path.is_absolute() {
        return Err(invalid(format!(
            "the path of \"{name}\" must be an absolute one"
        )));
    }
    // As a place only: neither its entries nor its content can be read with it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| {
        let error = io::Error::from(errno);
        let shown = path.display();
        let message = format!("the directory {shown} cannot be passed as \"{name}\": {error}");
        Failure::system(message, &error)
    })
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
    use crate::protocol::LogSpec;

    fn spec(files: &[PassedFile], directories: &[(&str, &str)]) -> StartSpec {
        let mut spec = StartSpec::new("a", "true", "/", LogSpec::new("/tmp", "a"));
        spec.passed = files.to_vec();
        let passed = |(name, path): &(&str, &str)| PassedDirectory {
            name: (*name).into(),
            path: path.into(),
        };
        spec.directories = directories.iter().map(passed).collect();
        spec
    }

    fn file(name: &str, content: &str) -> PassedFile {
        PassedFile {
            name: name.into(),
            content: content.into(),
        }
    }

    #[test]
    fn a_file_can_be_read_and_no_longer_changed() {
        let mut made = make(&spec(&[file("a", "c2VjcmV0")], &[])).unwrap();
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
        let check_spec = |spec: &StartSpec, text: &str| {
            let failure = check(spec).and_then(|()| make(spec).map(drop)).unwrap_err();
            assert_eq!(failure.code, FailureCode::InvalidRequest);
            assert!(failure.message.contains(text), "{failure}");
            assert!(!failure.message.contains("secret"), "{failure}");
        };
        let check_all = |files: &[PassedFile], text: &str| check_spec(&spec(files, &[]), text);
        check_all(&[file("A", "")], "\"A\"");
        check_all(&[file("a", ""), file("a", "")], "twice");
        check_all(&[file("a", "secret!")], "base64");
        check_all(&[file("a", &STANDARD.encode([0; BYTES_MAX + 1]))], "65537");
        check_all(&vec![file("a", ""); FILES_MAX + 1], "16");
        check_spec(&spec(&[file("a", "")], &[("a", "/")]), "twice");
        check_spec(&spec(&[], &[("a", "tmp")]), "absolute");
        check_spec(
            &spec(&[], &[("a", "/"); DIRECTORIES_MAX + 1]),
            "4 directories",
        );
        assert!(!format!("{:?}", file("a", "secret")).contains("secret"));
    }
}
