//! The looking at a fleet on a machine made of paper.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// A machine as a table.
#[derive(Default)]
struct Table {
    entries: BTreeMap<&'static str, Entry>,
    files: BTreeMap<&'static str, &'static str>,
    listeners: BTreeMap<u16, Listener>,
    root: bool,
}

impl Machine for Table {
    fn entry(&self, path: &Path) -> Option<Entry> {
        let path = path.to_str().expect("paths of the test are text");
        self.entries.get(path.trim_end_matches('/')).copied()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = path.to_str().and_then(|path| self.files.get(path));
        text.map(|text| text.as_bytes().to_vec())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn search_path(&self) -> &str {
        "/usr/bin:/bin"
    }

    fn has_user(&self, name: &str) -> bool {
        name == "web"
    }

    fn is_root(&self) -> bool {
        self.root
    }

    fn listener(&self, port: u16) -> Option<Listener> {
        self.listeners.get(&port).cloned()
    }
}

fn table() -> Table {
    Table {
        entries: BTreeMap::from([
            ("/srv", Entry::Directory),
            ("/srv/app", Entry::Directory),
            ("/srv/app/run.sh", Entry::File),
            ("/srv/app/tool", Entry::Program),
            ("/bin/sh", Entry::Program),
        ]),
        files: BTreeMap::from([("/srv/good.env", "A=1\n"), ("/srv/bad.env", "A=1\nB\n")]),
        ..Table::default()
    }
}

fn fleet(spec: serde_json::Value) -> Fleet {
    let services = json!({ "api": spec });
    serde_json::from_value(json!({ "name": "test", "services": services })).expect("a fleet")
}

fn said(faults: &[Fault]) -> Vec<String> {
    faults
        .iter()
        .map(|fault| {
            let hint = fault.hint.as_deref().expect("each fault says what to do");
            let place = match fault.origin {
                crate::Origin::File { .. } => fault.origin.to_string(),
                _ => fault.pointer.clone(),
            };
            format!("{place}: {} | {hint}", fault.message)
        })
        .collect()
}

#[test]
fn what_a_service_needs_must_be_there() {
    let check = |spec: serde_json::Value, expected: &[&str]| {
        let faults = super::check(&fleet(spec), None, Path::new("/srv"), &table());
        assert_eq!(said(&faults), expected);
    };
    check(json!({"command": "sh -c true"}), &[]);
    check(
        json!({"command": ["./tool"], "directory": "app", "env_files": ["good.env"]}),
        &[],
    );
    check(
        json!({"command": "python4 api.py"}),
        &[
            "/services/api/command: there is no program `python4` in /usr/bin, /bin | install it, or write its whole path",
        ],
    );
    check(
        json!({"command": ["tool"], "directory": "app"}),
        &[
            "/services/api/command/0: there is no program `tool` in /usr/bin, /bin | write `./tool` for the one in the service's directory",
        ],
    );
    check(
        json!({"command": "tool", "environment": {"PATH": "/srv/app"}}),
        &[],
    );
    check(
        json!({"command": "./run.sh", "directory": "app"}),
        &[
            "/services/api/command: /srv/app/run.sh is not executable | run `chmod +x /srv/app/run.sh`, or name its interpreter first",
        ],
    );
    check(
        json!({"command": "./gone", "directory": "/srv"}),
        &[
            "/services/api/command: there is no program /srv/gone | a relative path begins in the service's directory",
        ],
    );
    check(
        json!({"command": "sh", "directory": "gone"}),
        &["/services/api/directory: there is no directory /srv/gone | run `mkdir -p /srv/gone`"],
    );
    check(
        json!({"command": "sh", "directory": "~/app"}),
        &[
            "/services/api/directory: there is no directory /srv/~/app | `~` is not replaced: write the whole path",
        ],
    );
    check(
        json!({"command": "sh", "env_files": ["gone.env", "bad.env"]}),
        &[
            "/srv/bad.env:2:1: found `B`, expected `NAME=value` | write a `=`, or a `#` before a comment",
            "/services/api/env_files/0: there is no file /srv/gone.env | a relative path begins in the directory of this file",
        ],
    );
    check(
        json!({"command": "sh", "user": "nobody-here"}),
        &[
            "/services/api/user: there is no user `nobody-here` on this machine | create the user, or remove the key",
        ],
    );
    check(
        json!({"command": "sh", "user": "web"}),
        &[
            "/services/api/user: only root may start a program as `web` | remove the key, or run Alicia as root",
        ],
    );
}

#[test]
fn root_may_start_a_program_as_another_user() {
    let fleet = fleet(json!({"command": "sh", "user": "web"}));
    let machine = Table {
        root: true,
        ..table()
    };
    assert_eq!(super::check(&fleet, None, Path::new("/srv"), &machine), []);
}

#[test]
fn a_taken_port_names_who_has_it() {
    let fleet = fleet(
        json!({"command": "sh", "ports": {"http": 80, "grpc": 81, "any": "auto", "free": 82}}),
    );
    let listener = Listener {
        pid: Some(7),
        program: Some("nginx".to_owned()),
    };
    let machine = Table {
        listeners: BTreeMap::from([(80, listener), (81, Listener::default())]),
        ..table()
    };
    assert_eq!(
        said(&check_ports(&fleet, None, &machine)),
        [
            "/services/api/ports/grpc: the port 81 is taken | stop that program, choose another port, or write `auto`",
            "/services/api/ports/http: the port 80 is taken by nginx (pid 7) | stop that program, choose another port, or write `auto`",
        ]
    );
}
