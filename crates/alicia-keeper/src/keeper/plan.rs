//! From a start request to what the child needs: every fault that can be seen beforehand is found here.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::containment::TAG_NAME;
use crate::protocol::{Failure, FailureCode, ResourceLimit, StartSpec, is_name};
use crate::sandbox::{self, Prepared};
use crate::sys::{Identity, LISTEN_FD_FIRST};
use crate::{accounts, program, signals};

use super::passed;

/// File mode creation mask where the host names none.
const UMASK: u32 = 0o022;
/// More sockets than a service listens on.
const LISTENERS_MAX: usize = 64;
/// Resources by name.
const RESOURCES: [(&str, libc::c_uint); 9] = [
    ("as", libc::RLIMIT_AS as libc::c_uint),
    ("core", libc::RLIMIT_CORE as libc::c_uint),
    ("cpu", libc::RLIMIT_CPU as libc::c_uint),
    ("data", libc::RLIMIT_DATA as libc::c_uint),
    ("fsize", libc::RLIMIT_FSIZE as libc::c_uint),
    ("memlock", libc::RLIMIT_MEMLOCK as libc::c_uint),
    ("nofile", libc::RLIMIT_NOFILE as libc::c_uint),
    ("nproc", libc::RLIMIT_NPROC as libc::c_uint),
    ("stack", libc::RLIMIT_STACK as libc::c_uint),
];

/// A start that was checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    pub(super) directory: CString,
    pub(super) identity: Option<Identity>,
    pub(super) umask: libc::mode_t,
    pub(super) resource_limits: Vec<(libc::c_int, libc::rlimit)>,
    /// Directories, then files, in the order of the request.
    pub(super) passed: Vec<OwnedFd>,
    pub(super) sandbox: Option<Prepared>,
    /// Variables whose value is the child's pid.
    pub(super) pid_variables: Vec<&'static str>,
}

impl Plan {
    /// `tag` marks the processes of the run, `notify_socket` is where they may say something.
    pub(super) fn of(
        spec: &StartSpec,
        tag: &str,
        notify_socket: Option<&str>,
    ) -> Result<Self, Failure> {
        check_fields(spec)?;
        passed::check(spec)?;
        check_directory(&spec.directory)?;
        let path = spec.environment.get("PATH").map(String::as_str);
        let file = program::find(&spec.program, &spec.directory, path)?;
        let identity = accounts::identity(spec.user.as_deref(), spec.group.as_deref())?;
        let arguments = [&spec.program].into_iter().chain(&spec.arguments);
        let sandbox = spec.sandbox.as_ref();
        let sandbox = sandbox.map(|wanted| sandbox::prepare(wanted, &file));
        Ok(Self {
            sandbox: sandbox.transpose()?,
            program: c_string("program", file.as_os_str().as_bytes())?,
            arguments: arguments
                .map(|argument| c_string("arguments", argument.as_bytes()))
                .collect::<Result<_, _>>()?,
            environment: environment(spec, tag, notify_socket)?,
            directory: c_string("directory", spec.directory.as_os_str().as_bytes())?,
            identity,
            umask: spec.umask.unwrap_or(UMASK),
            resource_limits: spec
                .resource_limits
                .iter()
                .map(limit)
                .collect::<Result<_, _>>()?,
            passed: passed::make(spec)?,
            pid_variables: pid_variables(spec),
        })
    }
}

fn pid_variables(spec: &StartSpec) -> Vec<&'static str> {
    let listens = (!spec.listeners.is_empty()).then_some("LISTEN_PID=");
    let is_watched = spec.notify && spec.watchdog_ms.is_some();
    let watched = is_watched.then_some("WATCHDOG_PID=");
    listens.into_iter().chain(watched).collect()
}

fn check_fields(spec: &StartSpec) -> Result<(), Failure> {
    if !is_name(&spec.instance) {
        let name = &spec.instance;
        return Err(invalid(format!(
            "\"{name}\" is no name: [a-z0-9-], 1 to 63 characters"
        )));
    }
    if !spec.directory.is_absolute() || !spec.log.directory.is_absolute() {
        return Err(invalid(
            "directory and log.directory must be absolute paths".to_owned(),
        ));
    }
    let stem = &spec.log.stem;
    if stem.is_empty() || stem.starts_with('.') || stem.contains(['/', '\0']) {
        return Err(invalid(format!(
            "\"{stem}\" cannot be the name of a log file"
        )));
    }
    if !signals::is_number(spec.stop_signal) {
        return Err(invalid(format!(
            "stop_signal: there is no signal {}",
            spec.stop_signal
        )));
    }
    if spec.watchdog_ms == Some(0) || (spec.watchdog_ms.is_some() && !spec.notify) {
        return Err(invalid(
            "watchdog_ms: must be 1 or more, and needs notify".to_owned(),
        ));
    }
    if spec.listeners.len() > LISTENERS_MAX {
        return Err(invalid(format!(
            "listeners: at most {LISTENERS_MAX} can be passed"
        )));
    }
    Ok(())
}

fn check_directory(directory: &Path) -> Result<(), Failure> {
    let refuse = |code, reason: &str, errno| {
        let message = format!("the directory {} {reason}", directory.display());
        Err(Failure {
            code,
            message,
            errno: Some(errno),
        })
    };
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => refuse(
            FailureCode::DirectoryNotFound,
            "is no directory",
            libc::ENOTDIR,
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refuse(
            FailureCode::DirectoryNotAccessible,
            "may not be entered",
            libc::EACCES,
        ),
        Err(_) => refuse(
            FailureCode::DirectoryNotFound,
            "does not exist",
            libc::ENOENT,
        ),
    }
}

/// The host's environment, with ours over it.
fn environment(
    spec: &StartSpec,
    tag: &str,
    notify_socket: Option<&str>,
) -> Result<Vec<CString>, Failure> {
    let mut own = vec![
        ("ALICIA_INSTANCE".to_owned(), spec.instance.clone()),
        (TAG_NAME.to_owned(), tag.to_owned()),
    ];
    if !spec.listeners.is_empty() {
        own.push(("LISTEN_FDS".to_owned(), spec.listeners.len().to_string()));
        own.push(("LISTEN_FDNAMES".to_owned(), spec.listeners.join(":")));
    }
    let numbers =
        LISTEN_FD_FIRST + libc::c_int::try_from(spec.listeners.len()).unwrap_or_default()..;
    for (name, number) in passed::names(spec).zip(numbers) {
        own.push((passed::variable(name), number.to_string()));
    }
    if let Some(socket) = notify_socket {
        own.push(("NOTIFY_SOCKET".to_owned(), socket.to_owned()));
    }
    if let (Some(_), Some(watchdog_ms)) = (notify_socket, spec.watchdog_ms) {
        let watchdog_us = watchdog_ms.saturating_mul(1_000);
        own.push(("WATCHDOG_USEC".to_owned(), watchdog_us.to_string()));
    }
    let is_ours = |name: &str| {
        // Sockets, files and watchdogs of the host's own start are none of the child's.
        own.iter().any(|(ours, _)| *ours == name)
            || name == "NOTIFY_SOCKET"
            || ["LISTEN_", "WATCHDOG_", passed::PREFIX]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let mut all = Vec::with_capacity(spec.environment.len() + own.len());
    for (name, value) in spec.environment.iter().filter(|(name, _)| !is_ours(name)) {
        if name.is_empty() || name.contains('=') {
            return Err(invalid(format!(
                "environment: \"{name}\" is no name of a variable"
            )));
        }
        all.push(c_string(
            "environment",
            format!("{name}={value}").as_bytes(),
        )?);
    }
    for (name, value) in own {
        all.push(c_string(
            "environment",
            format!("{name}={value}").as_bytes(),
        )?);
    }
    Ok(all)
}

fn limit(limit: &ResourceLimit) -> Result<(libc::c_int, libc::rlimit), Failure> {
    let found = RESOURCES.iter().find(|(name, _)| *name == limit.resource);
    let Some((_, resource)) = found else {
        let names: Vec<_> = RESOURCES.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "resource_limits: no resource \"{}\"; there are {}",
            limit.resource,
            names.join(", ")
        );
        return Err(invalid(message));
    };
    let value = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
    let values = libc::rlimit {
        rlim_cur: value(limit.soft),
        rlim_max: value(limit.hard),
    };
    Ok((*resource as libc::c_int, values))
}

fn c_string(field: &str, bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| invalid(format!("{field}: a zero byte is not allowed")))
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::LogSpec;

    fn spec() -> StartSpec {
        StartSpec::new("web-1", "true", "/", LogSpec::new("/tmp", "web-1"))
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let check = |change: fn(&mut StartSpec), expect: FailureCode, text: &str| {
            let mut spec = spec();
            change(&mut spec);
            let failure = Plan::of(&spec, "tag", None).unwrap_err();
            assert_eq!(failure.code, expect, "{failure}");
            assert!(failure.message.contains(text), "{failure}");
        };
        use FailureCode::{DirectoryNotFound, InvalidRequest, UserUnknown};
        check(|it| it.instance = "Web".into(), InvalidRequest, "\"Web\"");
        check(|it| it.directory = "var".into(), InvalidRequest, "absolute");
        check(
            |it| it.directory = "/nonexistent".into(),
            DirectoryNotFound,
            "/nonexistent",
        );
        check(
            |it| it.directory = "/etc/passwd".into(),
            DirectoryNotFound,
            "no directory",
        );
        check(|it| it.log.stem = "../x".into(), InvalidRequest, "../x");
        check(|it| it.stop_signal = 99, InvalidRequest, "99");
        check(
            |it| it.user = Some("nobody-here".into()),
            UserUnknown,
            "nobody-here",
        );
        check(
            |it| it.arguments = vec!["a\0b".into()],
            InvalidRequest,
            "arguments",
        );
        check(
            |it| drop(it.environment.insert("A=B".into(), String::new())),
            InvalidRequest,
            "A=B",
        );
        check(
            |it| {
                let resource = "files".into();
                it.resource_limits = vec![ResourceLimit {
                    resource,
                    soft: None,
                    hard: None,
                }];
            },
            InvalidRequest,
            "nofile",
        );
    }

    #[test]
    fn the_keepers_variables_win() {
        let mut spec = spec();
        spec.environment.insert(TAG_NAME.into(), "forged".into());
        spec.environment.insert("LISTEN_PID".into(), "1".into());
        spec.environment.insert("A".into(), "b".into());
        let plan = Plan::of(&spec, "tag", None).unwrap();
        let expect = [c"A=b", c"ALICIA_INSTANCE=web-1", c"ALICIA_KEEPER=tag"];
        assert_eq!(plan.environment, expect.map(CString::from));
    }
}
