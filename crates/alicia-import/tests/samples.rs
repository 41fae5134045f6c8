//! A sample of each format, with what must come of it: every setting is carried over or is a note.

#![expect(clippy::panic, reason = "a test fails with what it saw")]

use alicia_file::FileText;
use alicia_import::{Draft, Format, Surroundings, import};
use serde_json::{Value, json};

fn sample(name: &str) -> FileText {
    let path = format!("{}/tests/samples/{name}", env!("CARGO_MANIFEST_DIR"));
    FileText {
        name: name.to_owned(),
        bytes: std::fs::read(path).expect("the sample is there"),
    }
}

fn read(format: Format, names: &[&str]) -> Draft {
    let around = Surroundings::default();
    let files = names.iter().map(|name| sample(name)).collect();
    import(format, files, &around).expect("the sample is good")
}

/// The settings of a service as the written text has them.
fn settings(draft: &Draft, name: &str) -> Value {
    let text = draft.to_yaml();
    let sources = alicia_file::Sources::new().file("alicia.yaml", text.clone());
    let document =
        alicia_file::Document::parse(sources).unwrap_or_else(|faults| panic!("{text}\n{faults:?}"));
    document.to_json()["services"][name].clone()
}

#[track_caller]
fn check(draft: &Draft, name: &str, expect: &Value) {
    let found = settings(draft, name);
    assert_eq!(found, *expect, "{name}\n{}", draft.to_yaml());
}

/// Some note holds each of these texts.
#[track_caller]
fn check_notes(draft: &Draft, expect: &[&str]) {
    let notes: Vec<String> = draft
        .all_notes()
        .iter()
        .map(|(_, note)| note.to_string())
        .collect();
    for text in expect {
        assert!(
            notes.iter().any(|note| note.contains(text)),
            "{text} is not in {notes:#?}"
        );
    }
    assert_eq!(notes.len(), expect.len(), "{notes:#?}");
}

#[test]
fn a_procfile() {
    let draft = read(Format::Procfile, &["Procfile"]);
    check(
        &draft,
        "release",
        &json!({"command": "bin/migrate --quiet", "restart": "never"}),
    );
    check(
        &draft,
        "web",
        &json!({
            "command": ["sh", "-c", "node server.js --port $PORT"],
            "ports": {"http": "auto"},
            "depends_on": {"release": "completed"},
        }),
    );
    check(
        &draft,
        "worker-mail",
        &json!({
            "command": "python -u worker.py",
            "depends_on": {"release": "completed"},
        }),
    );
    check_notes(&draft, &["the name was `worker_mail`"]);
}

#[test]
fn a_configuration_of_supervisord() {
    let draft = read(Format::Supervisord, &["supervisord.conf"]);
    check(
        &draft,
        "api",
        &json!({
            "command": "python -u api.py --name api",
            "directory": "/srv/api",
            "user": "www-data",
            "instances": 2,
            "restart": "always",
            "start_limit": {"starts": 6},
            "stop": {"signal": "SIGQUIT", "grace": "20s"},
            "environment": {"MODE": "production, eu", "TOKEN": "a=b", "LEVEL": "3"},
            "log": {"max_size": "50MiB", "max_files": 10},
            "groups": ["back-end"],
        }),
    );
    check(
        &draft,
        "worker",
        &json!({
            "command": ["sh", "-c", "exec /usr/bin/env worker --home ${HOME} --number $((ALICIA_SLOT - 1))"],
            "restart": "on-failure",
            "start_limit": {"starts": 4},
            "success_exit_codes": [3],
            "profiles": ["by-hand"],
            "groups": ["back-end"],
        }),
    );
    check_notes(
        &draft,
        &[
            "`[eventlistener:mail]`",
            "`[include]` is not followed",
            "`startsecs`",
            "`priority = 10`",
            "`stdout_logfile = /var/log/api.log`",
        ],
    );
}

#[test]
fn an_ecosystem_of_pm2() {
    let draft = read(Format::Pm2, &["ecosystem.json"]);
    check(
        &draft,
        "api-server",
        &json!({
            "command": [
                "node", "--max-old-space-size=512", "./dist/server.js", "--port", "3000", "--title", "two words",
            ],
            "directory": "/srv/api",
            "instances": 4,
            "environment": {"NODE_ENV": "development", "PORT": "3000"},
            "limits": {"memory": "300MiB"},
            "stop": {"signal": "SIGINT", "grace": "3s"},
            "back_off": {"initial": "0s", "max": "0s", "jitter": 0, "reset_after": "1s"},
            "start_limit": {"starts": 17, "within": "1m"},
        }),
    );
    check(
        &draft,
        "jobs",
        &json!({
            "command": "python3 jobs.py",
            "restart": "never",
            "stop": {"signal": "SIGINT", "grace": "1s600ms"},
            "back_off": {"initial": "100ms", "max": "15s", "factor": 1.5, "jitter": 0},
            "start_limit": {"starts": 17, "within": "1m"},
        }),
    );
    assert_eq!(settings(&draft, "front")["command"], json!("npm run start"));
    check_notes(
        &draft,
        &[
            "`deploy`",
            "`exec_mode: cluster`",
            "`env_production`",
            "the name was `API Server`",
            "`cron_restart: ",
        ],
    );
}

#[test]
fn a_project_of_process_compose() {
    let draft = read(Format::ProcessCompose, &["process-compose.yaml"]);
    check(
        &draft,
        "db",
        &json!({
            "command": "postgres -D data",
            "environment": {"LEVEL": "info"},
            "restart": "always",
            "back_off": {"initial": "2s", "max": "2s", "jitter": 0},
            "readiness": {
                "exec": {"command": ["bash", "-c", "pg_isready -h localhost | grep accepting"]},
                "interval": "5s", "timeout": "2s", "fall": 4,
            },
            "stop": {"signal": "SIGINT", "grace": "15s"},
        }),
    );
    check(
        &draft,
        "api",
        &json!({
            "command": ["bash", "-c", "cd api\nexec ./serve --port 8080\n"],
            "directory": "./src",
            "environment": {"LEVEL": "info", "PORT": "8080"},
            "instances": 2,
            "depends_on": {"migrate": "completed"},
            "liveness": {"http": {"path": "/health", "host": "127.0.0.1", "port": 8080}, "delay": "3s"},
            "restart": "on-failure",
            "start_limit": {"starts": 6, "within": "1d"},
            "groups": ["back"],
        }),
    );
    assert_eq!(
        settings(&draft, "migrate")["depends_on"],
        json!({"db": "healthy"})
    );
    assert_eq!(settings(&draft, "docs")["profiles"], json!(["by-hand"]));
    check_notes(&draft, &["`is_daemon`"]);
}

#[test]
fn a_file_of_compose() {
    let draft = read(Format::Compose, &["compose.yaml"]);
    assert_eq!(draft.name.as_deref(), Some("shop"));
    let healthy = json!({
        "exec": {"command": ["sh", "-c", "pg_isready -U postgres"]}, "interval": "5s", "timeout": "3s",
    });
    let mut alive = healthy.clone();
    alive["fall"] = json!(5);
    check(
        &draft,
        "db",
        &json!({
            "container": {
                "image": "postgres:16",
                "volumes": ["data:/var/lib/postgresql/data", "./init:/docker-entrypoint-initdb.d:ro"],
            },
            "environment": {"POSTGRES_PASSWORD": "", "POSTGRES_DB": "shop"},
            "readiness": healthy,
            "liveness": alive,
            "start_timeout": "30s",
            "restart": "always",
            "stop": {"grace": "10s"},
        }),
    );
    check(
        &draft,
        "web-app",
        &json!({
            "container": {"image": "shop/web:1.2", "network": "bridge", "ports": {"http": 8000}},
            "command": ["gunicorn", "-b", "0.0.0.0:8000", "app:create()"],
            "instances": 2,
            "depends_on": {"db": "healthy"},
            "ports": {"http": "auto"},
            "restart": "always",
            "stop": {"signal": "SIGINT", "grace": "1m30s"},
            "limits": {"cpu": 0.5, "memory": "256MiB", "processes": 100},
        }),
    );
    check(
        &draft,
        "job",
        &json!({
            "container": {"image": "shop/web:1.2"},
            "command": ["python", "job.py"],
            "env_files": ["job.env"],
            "depends_on": {"db": "started"},
            "profiles": ["manual"],
            "restart": "on-failure",
            "start_limit": {"starts": 4, "within": "1d"},
            "stop": {"grace": "10s"},
        }),
    );
    check_notes(
        &draft,
        &[
            "`networks`: containers",
            "`volumes`: the engine",
            "`logging`",
            "set it in .env",
            "`build`: images are not built",
            "`networks`: containers",
            "`logging`",
            "the port 8080 cannot be",
            "the name was `web_app`",
            "`privileged` has no counterpart",
        ],
    );
}

#[test]
fn units_of_systemd() {
    let draft = read(Format::Systemd, &["api.service", "postgres.service"]);
    check(
        &draft,
        "api",
        &json!({
            "description": "The API",
            "command": ["sh", "-c", "exec /usr/bin/api --config /etc/api.conf --name api.service --level $LEVEL"],
            "directory": "/srv/api",
            "user": "api",
            "environment": {"LEVEL": "info", "TITLE": "two words", "CACHE": "%C/api"},
            "env_files": ["/etc/default/api"],
            "depends_on": {"postgres": "healthy"},
            "readiness": {"notify": true},
            "liveness": {"watchdog": "10s"},
            "restart": "on-failure",
            "back_off": {"initial": "100ms"},
            "start_limit": {"starts": 5, "within": "30s"},
            "success_exit_codes": [143],
            "on_exit": {"prevent_restart": [78, "SIGABRT", 79], "force_restart": [75]},
            "stop": {"grace": "1m30s", "signal": "SIGINT"},
            "limits": {"memory": "512MiB", "cpu": 1.5, "processes": 64, "open_files": 4096},
            "sandbox": {"no_new_privileges": true},
        }),
    );
    check(
        &draft,
        "postgres",
        &json!({
            "description": "PostgreSQL",
            "command": "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql",
            "restart": "always",
        }),
    );
    check_notes(
        &draft,
        &[
            "`ExecStartPre=/usr/bin/install -d /run/api`",
            "`/etc/default/api.local` may be missing",
            "`DATAERR`: write the number",
            "`%C`: write out",
            "`ProtectSystem=strict`",
            "`redis` is not among the imported units",
        ],
    );
}

#[test]
fn files_that_are_something_else_are_refused_with_a_reason() {
    let around = Surroundings::default();
    for (format, name) in Format::ALL {
        let something_else: &[&[u8]] = match format {
            // Almost anything may stand after a colon there.
            Format::Procfile => &[b"", b"hello", b"[x]\ny", b": x", b"a:", b"\xff\xfe"],
            _ => &[
                b"",
                b"hello",
                b"[x]\ny",
                b"a: [",
                b"\xff\xfe",
                b"apps: 3",
                b"services: []",
            ],
        };
        for bytes in something_else {
            let file = FileText {
                name: "it".to_owned(),
                bytes: bytes.to_vec(),
            };
            match import(format, vec![file], &around) {
                Err(faults) => assert!(
                    faults.iter().all(|fault| !fault.message.is_empty()),
                    "{name}"
                ),
                Ok(draft) => panic!("{name} took {bytes:?} for {draft:?}"),
            }
        }
    }
}
