//! What lets a program go on where it was: a directory that stays, and word that it is a restart. And what
//! lets it speak: a notify socket, where something listens to it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use alicia_contract::fleet::ServiceSpec;
use alicia_keeper::protocol::StartSpec;
use alicia_module::paths::Paths;

use super::launch::User;
use super::reach::Doors;
use crate::core::event::{SlotId, Spawn, SpawnFault};

/// Only the service looks into it.
const STATE_MODE: u32 = 0o700;
/// Others may pass through to their own.
const PARENT_MODE: u32 = 0o711;
/// The name under which the directory is passed to who cannot come to it.
const STATE: &str = "state";

/// The directory of a slot that stays.
pub(super) fn directory(paths: &Paths, slot: &SlotId) -> PathBuf {
    let parent = paths.data().join("state").join(slot.service.as_str());
    parent.join(slot.slot.to_string())
}

/// Adds the directory, the word and the arguments, where the service has a session.
pub(super) fn apply(
    start: &mut StartSpec,
    spawn: &Spawn,
    paths: &Paths,
    doors: &mut Doors,
) -> Result<(), SpawnFault> {
    let Some(session) = &spawn.spec.session else {
        return Ok(());
    };
    let state = directory(paths, &spawn.slot);
    let shown = state.display().to_string();
    let owner = spawn.spec.user.as_deref().map(User::find).transpose()?;
    make(&state, owner.map(|user| user.id)).map_err(|error| {
        SpawnFault::Passing(format!(
            "its directory {shown} cannot be made: {error}; see `session`"
        ))
    })?;
    let shown = doors.way_to(STATE, &state).display().to_string();
    let given = [("ALICIA_STATE_DIR", shown.clone())];
    let resume = spawn.resume.then_some(("ALICIA_RESUME", "1".to_owned()));
    for (name, value) in given.into_iter().chain(resume) {
        start.environment.insert(name.to_owned(), value);
    }
    if spawn.resume {
        let arguments = session.resume_arguments.iter();
        start
            .arguments
            .extend(arguments.map(|argument| argument.replace("{state}", &shown)));
    }
    Ok(())
}

fn make(state: &Path, owner: Option<u32>) -> io::Result<()> {
    let parent = state.parent().unwrap_or(state);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PARENT_MODE)
        .create(parent)?;
    match fs::DirBuilder::new().mode(STATE_MODE).create(state) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(state, fs::Permissions::from_mode(STATE_MODE))?;
        }
        made => made?,
    }
    match owner {
        Some(owner) => chown(state, Some(owner), None),
        None => Ok(()),
    }
}

/// Gives it a notify socket where something listens, and tells the keeper how often it must speak.
pub(super) fn listen(start: &mut StartSpec, spec: &ServiceSpec) {
    let watchdog = spec
        .liveness
        .as_ref()
        .and_then(|probe| probe.watchdog)
        .or(spec.notify.watchdog.filter(|_| spec.notify.enabled));
    let is_told = spec.readiness.as_ref().is_some_and(|probe| probe.notify);
    start.notify |= spec.notify.enabled
        || is_told
        || watchdog.is_some()
        || spec.progress.is_some()
        || spec.budget.is_some();
    if let Some(watchdog) = watchdog {
        start.watchdog_ms = u64::try_from(watchdog.duration().as_millis()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_socket_is_given_where_something_listens() {
        let check = |settings: serde_json::Value, expected: (bool, Option<u64>)| {
            let mut settings = settings;
            settings["command"] = json!("x");
            let spec: ServiceSpec = serde_json::from_value(settings.clone()).expect("a service");
            let log = alicia_keeper::protocol::LogSpec::new("/tmp", "1");
            let mut start = StartSpec::new("a", "x", "/tmp", log);
            listen(&mut start, &spec);
            assert_eq!((start.notify, start.watchdog_ms), expected, "{settings}");
        };
        check(json!({}), (false, None));
        check(json!({"notify": true}), (true, None));
        check(json!({"notify": {"watchdog": "5s"}}), (true, Some(5_000)));
        check(json!({"readiness": {"notify": true}}), (true, None));
        check(
            json!({"liveness": {"watchdog": "250ms"}}),
            (true, Some(250)),
        );
        check(json!({"progress": {"within": "1m"}}), (true, None));
        check(json!({"budget": {"tokens_per_day": 5}}), (true, None));
    }

    #[test]
    fn the_directory_stays_and_is_closed_to_others() {
        let base = tempfile::tempdir().expect("a directory");
        let state = base.path().join("state/api/1");
        make(&state, None).expect("made");
        fs::write(state.join("kept"), "x").expect("written");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("opened");
        make(&state, None).expect("made again");
        assert!(state.join("kept").exists());
        let mode = fs::metadata(&state).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, STATE_MODE);
    }
}
