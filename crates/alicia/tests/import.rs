//! `alicia import`: what is written is good, and runs as it did.

use std::fs;
use std::path::PathBuf;

use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, is_installed};

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

fn sample(name: &str) -> String {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = here.join("../alicia-import/tests/samples").join(name);
    path.display().to_string()
}

/// A house whose file is still to come.
fn empty() -> House {
    let house = House::new(ALICIA, "");
    fs::remove_file(house.path().join("alicia.yaml")).expect("it was just written");
    house
}

#[test]
fn what_is_imported_passes_the_check() {
    let samples: [(&str, &[&str]); 6] = [
        ("compose", &["compose.yaml"]),
        ("supervisord", &["supervisord.conf"]),
        ("pm2", &["ecosystem.json"]),
        ("process-compose", &["process-compose.yaml"]),
        ("procfile", &["Procfile"]),
        ("systemd", &["api.service", "postgres.service"]),
    ];
    for (format, names) in samples {
        let house = empty();
        let files: Vec<String> = names.iter().map(|name| sample(name)).collect();
        let output = house.path().join("alicia.yaml").display().to_string();
        let mut words = vec!["import", format, "-o", &output];
        words.extend(files.iter().map(String::as_str));
        house
            .says(&words)
            .exits(0)
            .tells(&["wrote", "next: alicia --file", "note: "]);
        house.says(&["check"]).exits(0);
        // A file that is there is not replaced unasked.
        house
            .says(&words)
            .exits(2)
            .tells(&["is there already", "--force"]);
        words.push("--force");
        house.says(&words).exits(0);
    }
}

#[test]
fn the_text_goes_to_standard_output_and_json_has_the_notes() {
    let house = empty();
    house
        .says(&["import", "procfile", &sample("Procfile")])
        .exits(0)
        .tells(&[
            "services:",
            "worker-mail:",
            "note: worker-mail: name: the name was `worker_mail`",
        ]);
    let json = house
        .says(&["import", "procfile", "--json", &sample("Procfile")])
        .exits(0)
        .json();
    assert_eq!(
        json["services"],
        serde_json::json!(["release", "web", "worker-mail"])
    );
    assert_eq!(json["notes"][0]["service"], "worker-mail");
}

#[test]
fn mistakes_say_what_to_do() {
    let house = empty();
    let file = |name: &str, text: &str| {
        let path = house.path().join(name);
        fs::write(&path, text).expect("it is written");
        path.display().to_string()
    };
    house
        .says(&["import", "compose", "/nowhere"])
        .exits(2)
        .tells(&["/nowhere", "No such file"]);
    house
        .says(&["import", "compose", "/"])
        .exits(2)
        .tells(&["directory"]);
    house
        .says(&["import", "make", "x"])
        .exits(2)
        .tells(&["possible values", "procfile"]);
    let wrong = file("x.yaml", "processes: {}\n");
    house
        .says(&["import", "compose", &wrong])
        .exits(2)
        .tells(&["found no map `services:`"]);
    let broken = file("y.yaml", "services: [\n");
    house
        .says(&["import", "compose", &broken])
        .exits(2)
        .tells(&["y.yaml:"]);
    if is_installed("node", "nodejs") {
        let broken = file(
            "ecosystem.config.js",
            "module.exports = {apps: [{script: nothing}]}",
        );
        house
            .says(&["import", "pm2", &broken])
            .exits(2)
            .tells(&["node could not evaluate", "nothing is not defined"]);
    }
}

#[test]
fn an_ecosystem_in_javascript_is_evaluated() {
    if !is_installed("node", "nodejs") {
        return;
    }
    let house = empty();
    let path = house.path().join("ecosystem.config.js");
    let text = "module.exports = {apps: [{name: 'a' + 1, script: 'a.py', instances: 1 + 1}]}";
    fs::write(&path, text).expect("it is written");
    house
        .says(&["import", "pm2", &path.display().to_string()])
        .exits(0)
        .tells(&["a1:", "command: python3 a.py", "instances: 2"]);
}

#[tokio::test]
async fn a_procfile_runs_as_before() {
    let mut house = empty();
    let procfile =
        "release: echo released\nweb: sleep 1000 & echo on $PORT; wait\nworker: sleep 1000\n";
    fs::write(house.path().join("Procfile"), procfile).expect("it is written");
    let path = |name: &str| house.path().join(name).display().to_string();
    house
        .says(&[
            "import",
            "procfile",
            &path("Procfile"),
            "-o",
            &path("alicia.yaml"),
        ])
        .exits(0);
    house.start_host().await;
    house.reaches("web-1", InstanceState::Running).await;
    house.reaches("worker-1", InstanceState::Running).await;
    house.reaches("release-1", InstanceState::Completed).await;
    house.says(&["down"]).exits(0);
}
