//! Finds the file of a program before anything is started, so that what is wrong can be said exactly.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::protocol::{Failure, FailureCode};

/// Where programs are searched when the environment has no `PATH` (that of Debian's `login`).
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The file to execute: a path with a slash as it is, from `directory`; a name by `path`.
pub(crate) fn find(
    program: &str,
    directory: &Path,
    path: Option<&str>,
) -> Result<PathBuf, Failure> {
    if program.is_empty() {
        return Err(Failure::new(
            FailureCode::InvalidRequest,
            "the program's name is empty",
        ));
    }
    if program.contains('/') {
        let file = directory.join(program);
        return check(&file).map(|()| file);
    }
    let path = path.unwrap_or(PATH_DEFAULT);
    let mut refusal = None;
    for entry in path.split(':') {
        // An empty entry means the working directory (POSIX, 8.3).
        let file = directory.join(entry).join(program);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(failure) if failure.code == FailureCode::ProgramNotFound => {}
            Err(failure) => refusal = refusal.or(Some(failure)),
        }
    }
    Err(refusal.unwrap_or_else(|| {
        let message = format!("no program \"{program}\" in PATH={path}");
        Failure {
            code: FailureCode::ProgramNotFound,
            message,
            errno: Some(libc::ENOENT),
        }
    }))
}

/// Whether a file can be executed, as far as it can be seen from here: the child's user may differ.
fn check(file: &Path) -> Result<(), Failure> {
    let refuse = |code, reason: &str, errno| {
        let message = format!("{}: {reason}", file.display());
        Err(Failure {
            code,
            message,
            errno: Some(errno),
        })
    };
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => refuse(
            FailureCode::ProgramNotExecutable,
            "it is a directory",
            libc::EISDIR,
        ),
        Ok(_) if access(file, Access::EXEC_OK).is_err() => refuse(
            FailureCode::ProgramNotExecutable,
            "it may not be executed",
            libc::EACCES,
        ),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refuse(
            FailureCode::ProgramNotExecutable,
            "its directory may not be read",
            libc::EACCES,
        ),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::ENOENT);
            refuse(FailureCode::ProgramNotFound, "there is no such file", errno)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_or_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        fs::create_dir(here.join("bin")).unwrap();
        fs::write(here.join("bin/tool"), "").unwrap();
        fs::set_permissions(here.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(here.join("bin/text"), "").unwrap();
        let check = |program: &str, path: Option<&str>, expect: Result<&str, FailureCode>| {
            let got = find(program, here, path).map_err(|failure| failure.code);
            assert_eq!(got, expect.map(|file| here.join(file)), "{program}");
        };
        check("bin/tool", None, Ok("bin/tool"));
        check("tool", Some("/nonexistent:bin"), Ok("bin/tool"));
        check(
            "tool",
            Some("/nonexistent"),
            Err(FailureCode::ProgramNotFound),
        );
        check("text", Some("bin"), Err(FailureCode::ProgramNotExecutable));
        check("./bin", None, Err(FailureCode::ProgramNotExecutable));
        check("./none", None, Err(FailureCode::ProgramNotFound));
        check("", None, Err(FailureCode::InvalidRequest));
        let failure = find("no-such-tool", here, Some("/a:/b")).unwrap_err();
        assert!(failure.message.contains("/a:/b"), "{failure}");
    }
}
