//! What people write who come from elsewhere (compose files, units, other supervisors), and what it is here.

use Here::{At, Write};

/// Where it is here.
enum Here {
    /// A key, or the path of one below another: `stop.grace`.
    At(&'static str),
    /// Something that has to be said in words.
    Write(&'static str),
}

const FOREIGN: [(&str, Here); 42] = [
    (
        "build",
        Write("build the image first, then write `container: {image: …}`"),
    ),
    (
        "cap_add",
        Write("write `container: {image: …, capabilities_add: […]}`"),
    ),
    ("cmd", At("command")),
    ("cpus", Write("write `limits: {cpu: 1.5}`")),
    ("cwd", At("directory")),
    ("deploy", Write("write `instances:` and `limits:`")),
    ("dir", At("directory")),
    ("entrypoint", At("command")),
    ("env", At("environment")),
    ("env_file", At("env_files")),
    ("envs", At("environment")),
    ("exec", At("command")),
    ("healthcheck", At("readiness")),
    ("image", Write("write `container: {image: …}`")),
    ("kill_timeout", At("stop.grace")),
    ("liveness_probe", At("liveness")),
    ("logging", At("log")),
    ("max_restarts", At("start_limit.starts")),
    ("mem_limit", Write("write `limits: {memory: 512MiB}`")),
    ("memory", Write("write `limits: {memory: 512MiB}`")),
    ("needs", At("depends_on")),
    ("numprocs", At("instances")),
    ("pids_limit", Write("write `limits: {processes: 100}`")),
    ("readiness_probe", At("readiness")),
    ("replicas", At("instances")),
    ("requires", At("depends_on")),
    ("restart_delay", At("back_off.initial")),
    ("restart_max", At("start_limit.starts")),
    ("restart_sec", At("back_off.initial")),
    ("restartsec", At("back_off.initial")),
    ("run", At("command")),
    ("scale", At("instances")),
    ("startretries", At("start_limit.starts")),
    ("stop_grace_period", At("stop.grace")),
    ("stop_timeout", At("stop.grace")),
    ("stopsignal", At("stop.signal")),
    ("stopwaitsecs", At("stop.grace")),
    ("timeoutstopsec", At("stop.grace")),
    (
        "version",
        Write("leave it away; `alicia import compose` takes a compose file over"),
    ),
    (
        "volumes",
        Write("write `container: {image: …, volumes: […]}`"),
    ),
    ("workdir", At("directory")),
    ("working_dir", At("directory")),
];

/// The key, or path of one, that a key from elsewhere has here.
pub(super) fn path_here(key: &str) -> Option<&'static str> {
    match find(key)? {
        At(path) => Some(path),
        Write(_) => None,
    }
}

/// What to write for a key from elsewhere that is no single key here.
pub(super) fn words(key: &str) -> Option<&'static str> {
    match find(key)? {
        At(_) => None,
        Write(words) => Some(words),
    }
}

fn find(key: &str) -> Option<&'static Here> {
    let key = key.to_lowercase();
    let found = FOREIGN.iter().find(|(there, _)| *there == key);
    found.map(|(_, here)| here)
}
