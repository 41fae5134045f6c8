//! The command line as people type it, as far as no fleet is needed: what it prints, and its exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const EXIT_FAILED: i32 = 1;
const EXIT_USAGE: i32 = 2;
const EXIT_NO_HOST: i32 = 3;

/// A home, a working directory and a data directory of a test's own.
struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(root.path().join("work")).expect("makes the working directory");
        Self { root }
    }

    fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.work().join(name), text).expect("writes");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.work().join(name)).expect("the file is there")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alicia"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.root.path())
            .env("ALICIA_DATA", self.root.path().join("data"))
            .current_dir(self.work());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(
            self.command(arguments).output().expect("alicia starts"),
            arguments,
        )
    }
}

/// What a command did.
struct Ran {
    line: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output, arguments: &[&str]) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("prints UTF-8");
        Self {
            line: arguments.join(" "),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "alicia {}\n{}{}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("prints JSON")
    }

    /// Everything that was printed.
    fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

#[test]
fn help_names_every_command_and_shows_none_that_is_hidden() {
    let place = Place::new();
    let help = place.run(&["--help"]).exits(0).stdout;
    for command in [
        "init",
        "up",
        "down",
        "status",
        "ps",
        "logs",
        "start",
        "stop",
        "restart",
        "scale",
        "bus",
        "check",
        "doctor",
        "key",
        "new",
        "schema",
        "run",
        "open",
        "completions",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} in {help}"
        );
        place.run(&[command, "--help"]).exits(0);
    }
    for hidden in ["keeper", "example", "openapi"] {
        assert!(
            !help.contains(&format!("\n  {hidden} ")),
            "{hidden} in {help}"
        );
    }
    place.run(&[]).exits(EXIT_USAGE);
    let wrong = place.run(&["statsu"]).exits(EXIT_USAGE);
    assert!(wrong.stderr.contains("status"), "{}", wrong.stderr);
}

#[test]
fn check_tells_every_fault_with_its_line_as_text_and_as_json() {
    let place = Place::new();
    place.write(
        "alicia.yaml",
        "services:\n  api:\n    comand: python3 api.py\n  db:\n    command: db\n    depends_on: [apj]\n",
    );
    let told = place.run(&["check"]).exits(EXIT_USAGE);
    assert!(told.stderr.contains("alicia.yaml:3:5"), "{}", told.stderr);
    assert!(
        told.stderr.contains("did you mean `command`?"),
        "{}",
        told.stderr
    );
    assert_eq!(told.stdout, "");

    let faults = place.run(&["check", "--json"]).exits(EXIT_USAGE).json();
    let faults = faults.as_array().expect("is a list");
    assert!(!faults.is_empty());
    assert!(
        faults.iter().all(|fault| fault["message"].is_string()),
        "{faults:?}"
    );

    place.write(
        "alicia.yaml",
        "services:\n  api:\n    command: [sh]\n    depends_on: [apj]\n",
    );
    let told = place.run(&["check"]).exits(EXIT_USAGE);
    assert!(
        told.stderr.contains("there is no service `apj`"),
        "{}",
        told.stderr
    );
}

#[test]
fn check_here_looks_for_programs_and_directories() {
    let place = Place::new();
    place.write(
        "alicia.yaml",
        "services:\n  a:\n    command: [no-such-program-anywhere]\n  b:\n    command: [sh]\n    directory: gone\n",
    );
    place.run(&["check"]).exits(0);
    let told = place.run(&["check", "--here"]).exits(EXIT_USAGE).stderr;
    assert!(
        told.contains("no-such-program-anywhere") && told.contains("mkdir -p"),
        "{told}"
    );
}

#[test]
fn the_built_in_fleet_is_good_and_runs_here() {
    let place = Place::new();
    let told = place.run(&["check"]).exits(0).stdout;
    assert!(
        told.contains("built-in example fleet") && told.contains("6 services"),
        "{told}"
    );
    place.run(&["check", "--here"]).exits(0);
}

#[test]
fn init_writes_a_file_that_is_good_and_never_replaces_one_unasked() {
    let place = Place::new();
    let told = place.run(&["init"]).exits(0).stdout;
    assert!(
        told.contains("alicia.yaml") && told.contains("alicia.schema.json"),
        "{told}"
    );
    let text = place.read("alicia.yaml");
    assert!(
        text.starts_with("# yaml-language-server: $schema=alicia.schema.json\n"),
        "{text}"
    );
    let schema: Value = serde_json::from_str(&place.read("alicia.schema.json")).expect("is JSON");
    assert_eq!(schema["title"], "alicia.yaml");
    place.run(&["check"]).exits(0);

    place.write("alicia.yaml", "name: mine\n");
    let refused = place.run(&["init"]).exits(EXIT_USAGE);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(place.read("alicia.yaml"), "name: mine\n");
    place.run(&["init", "--force"]).exits(0);
    assert_eq!(place.read("alicia.yaml"), text);
}

#[test]
fn new_writes_a_python_service_and_its_entry() {
    let place = Place::new();
    place.write(
        "alicia.yaml",
        "# mine\nservices:\n  a: # the first\n    command: [sh]\n\n# end\nname: x\n",
    );
    place
        .run(&["new", "service", "greeter", "--lang", "python"])
        .exits(0);
    let text = place.read("alicia.yaml");
    for kept in ["# mine\n", "  a: # the first\n", "\n# end\nname: x\n"] {
        assert!(text.contains(kept), "{kept:?} in {text}");
    }
    assert!(text.contains("\n  greeter:\n"), "{text}");
    place.run(&["check", "--here"]).exits(0);
    assert!(
        place
            .read("greeter/service.py")
            .contains("Service(\"greeter\"")
    );
    assert!(
        place
            .read("greeter/alicia_sdk/__init__.py")
            .contains("Service")
    );
    assert!(place.work().join("greeter/.gitignore").is_file());

    // A second one, and names that cannot be.
    place
        .run(&["new", "service", "second", "--lang", "python"])
        .exits(0);
    place.run(&["check"]).exits(0);
    let before = (place.read("alicia.yaml"), entries(&place.work()));
    for (name, reason) in [
        ("greeter", "there already"),
        ("Greeter", "no name of a service"),
        ("a", "already"),
    ] {
        let refused = place
            .run(&["new", "service", name, "--lang", "python"])
            .exits(EXIT_USAGE);
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    }
    assert_eq!((place.read("alicia.yaml"), entries(&place.work())), before);
}

#[test]
fn new_begins_a_file_where_there_is_none_and_leaves_nothing_of_what_fails() {
    let place = Place::new();
    place
        .run(&["new", "service", "first", "--lang", "python"])
        .exits(0);
    place.run(&["check"]).exits(0);

    let place = Place::new();
    place.write("alicia.yaml", "services: {a: {command: [sh]}}\n");
    let refused = place
        .run(&["new", "service", "first", "--lang", "python"])
        .exits(EXIT_USAGE);
    assert!(refused.stderr.contains("by hand"), "{}", refused.stderr);
    place.write("alicia.yaml", "services: [\n");
    place
        .run(&["new", "service", "first", "--lang", "python"])
        .exits(EXIT_USAGE);
    assert_eq!(entries(&place.work()), ["alicia.yaml"]);
}

#[test]
fn new_in_rust_needs_the_source_of_alicia() {
    let place = Place::new();
    let refused = place
        .run(&["new", "service", "quick", "--lang", "rust"])
        .exits(EXIT_USAGE);
    assert!(refused.stderr.contains("--sdk DIR"), "{}", refused.stderr);
    let refused = place
        .run(&["new", "service", "quick", "--lang", "rust", "--sdk", "."])
        .exits(EXIT_USAGE);
    assert!(
        refused.stderr.contains("has no crates/alicia-sdk"),
        "{}",
        refused.stderr
    );
    assert_eq!(entries(&place.work()), [""; 0]);

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let source = source.to_str().expect("is text");
    place
        .run(&["new", "service", "quick", "--lang", "rust", "--sdk", source])
        .exits(0);
    let manifest = place.read("quick/Cargo.toml");
    let path = manifest
        .split("path = \"")
        .last()
        .and_then(|rest| rest.split('"').next())
        .expect("has a path");
    assert!(Path::new(path).join("Cargo.toml").is_file(), "{manifest}");
    place.run(&["check"]).exits(0);
}

/// The names in a directory, sorted.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("is a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("reads")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn completions_are_written_for_the_usual_shells() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&["completions", shell]).exits(0).stdout;
        assert!(
            script.contains("alicia") && script.contains("doctor"),
            "{shell}"
        );
    }
    place.run(&["completions", "cmd.com"]).exits(EXIT_USAGE);
}

#[test]
fn documents_are_json() {
    let place = Place::new();
    let schema = place.run(&["schema"]).exits(0).json();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["services"].is_object());
    let openapi = place.run(&["openapi"]).exits(0).json();
    assert!(openapi["paths"]["/health"].is_object());
    let asyncapi = place.run(&["bus", "schema"]).exits(0).json();
    assert!(asyncapi["asyncapi"].is_string());
}

#[test]
fn without_a_host_the_exit_code_says_so() {
    let place = Place::new();
    for arguments in [
        &["ps"][..],
        &["status"],
        &["logs"],
        &["restart", "api"],
        &["down"],
        &["alerts"],
        &["key", "list"],
        &["bus", "sub", "--count", "1"],
        &["ps", "--api", "http://127.0.0.1:1"],
    ] {
        let told = place.run(arguments).exits(EXIT_NO_HOST);
        assert!(
            told.stderr.contains("alicia up"),
            "{arguments:?}: {}",
            told.stderr
        );
    }
}

#[test]
fn doctor_tells_everything_it_looked_at() {
    let place = Place::new();
    place.write(
        "alicia.yaml",
        "http: {listen: '127.0.0.1:0'}\nmodules: {}\nbus: {url: 'mqtt://127.0.0.1:1'}\n",
    );
    let ran = place.run(&["doctor", "--json"]);
    let report = ran.json();
    let findings = report["findings"].as_array().expect("is a list");
    for finding in findings {
        let level = finding["level"].as_str().expect("has a level");
        assert!(["ok", "warn", "fail"].contains(&level), "{finding}");
        assert!(
            finding["check"].is_string() && finding["found"].is_string(),
            "{finding}"
        );
        assert_eq!(finding["mend"].is_string(), level != "ok", "{finding}");
    }
    let names: Vec<&str> = findings
        .iter()
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    for name in [
        "file",
        "data directory",
        "disk",
        "keeper",
        "host",
        "containment",
        "clock",
        "open files",
        "gpu",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let failed = report["level"] == "fail";
    assert_eq!(
        ran.code,
        Some(if failed { EXIT_FAILED } else { 0 }),
        "{report}"
    );
}

#[test]
fn doctor_fails_where_something_is_wrong_and_says_what_to_do() {
    let place = Place::new();
    place.write("alicia.yaml", "services:\n  api:\n    comand: x\n");
    let ran = place.run(&["doctor"]).exits(EXIT_FAILED);
    assert!(ran.text().contains("alicia check"), "{}", ran.text());

    // A port that another program has.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    place.write("alicia.yaml", &format!("http: {{listen: '{address}'}}\n"));
    let ran = place.run(&["doctor"]).exits(EXIT_FAILED);
    assert!(
        ran.text().contains(&format!("{address} is taken by")),
        "{}",
        ran.text()
    );

    // A data directory in which nobody may write.
    place.write("alicia.yaml", "http: {listen: '127.0.0.1:0'}\n");
    place.write("file", "");
    let ran = place
        .run(&["doctor", "--data", "file/data"])
        .exits(EXIT_FAILED);
    assert!(ran.text().contains("is not a directory"), "{}", ran.text());
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let place = Place::new();
    let mut command = place.command(&["schema"]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("alicia starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("alicia ends");
    assert!(ended.status.success(), "{}", ended.status);
    assert!(
        ended.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[test]
fn an_example_that_is_not_there_names_those_that_are() {
    let place = Place::new();
    let told = place.run(&["example", "nobody"]).exits(EXIT_USAGE);
    assert!(
        told.stderr
            .contains("sensors, clock, commands, rules, notifier"),
        "{}",
        told.stderr
    );
    // One that is there says what it needs.
    let told = place.run(&["example", "clock"]).exits(EXIT_FAILED);
    assert!(told.stderr.contains("ALICIA_MQTT_URL"), "{}", told.stderr);
}
