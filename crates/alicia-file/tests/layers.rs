//! Layers: what wins, where a value comes from, and how texts of the environment become values.

use std::fs;

use alicia_file::{Document, Sources};
use serde_json::{Value, json};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn said(sources: Sources) -> Vec<String> {
    let faults = Document::parse(sources).expect_err("something is wrong");
    faults
        .iter()
        .map(|fault| format!("{}: {}", fault.origin, fault.message))
        .collect()
}

#[test]
fn a_later_layer_wins_and_each_value_knows_its_own() {
    let sources = Sources::new()
        .defaults(json!({"http": {"listen": "a", "open": false}, "log": {"level": "info"}}))
        .file("alicia.yaml", "http:\n  listen: b\n")
        .environment(
            pairs(&[("ALICIA_HTTP__LISTEN", "c"), ("ALICIA_HTTP__OPEN", "true")]),
            &[],
        )
        .flags(pairs(&[("/http/listen", "d")]));
    let document = Document::parse(sources).expect("it is good");
    assert_eq!(
        document.to_json(),
        json!({"http": {"listen": "d", "open": true}, "log": {"level": "info"}})
    );
    let origin = |pointer: &str| document.origin(pointer).to_string();
    assert_eq!(origin("/http/listen"), "--set http.listen=d");
    assert_eq!(
        origin("/http/open"),
        "environment variable ALICIA_HTTP__OPEN"
    );
    assert_eq!(origin("/http"), "alicia.yaml:1:1");
    assert_eq!(origin("/log/level"), "built-in default");
}

#[test]
fn a_variable_names_a_path_and_holds_a_scalar() {
    let check = |name: &str, value: &str, expected: Value| {
        let sources = Sources::new()
            .file(
                "alicia.yaml",
                "services:\n  my-api: {command: [a, b]}\nname: x\n",
            )
            .environment(pairs(&[(name, value)]), &["ALICIA_DATA", "ALICIA_PORT_*"]);
        let document = Document::parse(sources).expect(name);
        let mut whole = json!({"services": {"my-api": {"command": ["a", "b"]}}, "name": "x"});
        merge(&mut whole, expected);
        assert_eq!(document.to_json(), whole, "{name}={value}");
    };
    check("ALICIA_NAME", "home", json!({"name": "home"}));
    check("ALICIA_NAME", "a: b", json!({"name": "a: b"}));
    check("ALICIA_NAME", "\"12\"", json!({"name": "12"}));
    check("ALICIA_HTTP__PORT", " 12 ", json!({"http": {"port": 12}}));
    check("ALICIA_A__B", "[1, x]", json!({"a": {"b": [1, "x"]}}));
    check("ALICIA_A__B", "", json!({"a": {"b": null}}));
    check(
        "ALICIA_SERVICES__MY_API__COMMAND__1",
        "c",
        json!({"services": {"my-api": {"command": ["a", "c"]}}}),
    );
    for ignored in ["ALICIA_DATA", "ALICIA_PORT_HTTP", "HOME"] {
        check(ignored, "x", json!({}));
    }
}

fn merge(base: &mut Value, top: Value) {
    match (base, top) {
        (Value::Object(base), Value::Object(top)) => {
            for (key, value) in top {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, top) => *base = top,
    }
}

#[test]
fn texts_are_never_interpolated() {
    let document = Document::parse(Sources::new().file("a.yaml", "name: ${HOME} $HOME {{ x }}\n"));
    let name = document
        .expect("it is good")
        .get::<String>("/name")
        .expect("it is text");
    assert_eq!(name.as_deref(), Some("${HOME} $HOME {{ x }}"));
}

#[test]
fn what_cannot_be_set_says_why() {
    let file = || Sources::new().file("alicia.yaml", "name: x\nlist: [a]\n");
    let variable = |name: &str, value: &str| said(file().environment(pairs(&[(name, value)]), &[]));
    assert_eq!(
        variable("ALICIA_NAME__FIRST", "y"),
        [
            "environment variable ALICIA_NAME__FIRST: sets /name/first, but /name (alicia.yaml:1:7) is neither a map nor a list"
        ]
    );
    assert_eq!(
        variable("ALICIA_LIST__1", "y"),
        [
            "environment variable ALICIA_LIST__1: sets /list/1, but /list (alicia.yaml:2:7) is a list of 1 items"
        ]
    );
    assert_eq!(
        variable("ALICIA_NAME", "[a"),
        ["environment variable ALICIA_NAME: a list that starts with `[` is not closed"]
    );
    let deep = format!("ALICIA_{}", vec!["A"; 100].join("__"));
    assert!(variable(&deep, "y")[0].ends_with("nested more than 64 levels deep"));
    assert_eq!(
        said(file().flags(pairs(&[("http.listen", "x")]))),
        ["--set http.listen=x: found \"http.listen\", expected a pointer such as /http/listen"]
    );
}

#[test]
fn fragments_lie_beside_each_other_and_name_both_when_they_clash() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect(name);
    write(
        "10-base.yaml",
        "name: home\nservices:\n  api: {command: a}\n",
    );
    write("20-more.yaml", "services:\n  web: {command: b}\n");
    write("30-empty.yaml", "# nothing yet\n");
    write(".hidden.yaml", "not: [read");
    write("notes.txt", "not: [read");
    let read = || {
        Sources::new()
            .path(directory.path())
            .expect("it can be read")
    };
    let document = Document::parse(read()).expect("they fit");
    assert_eq!(
        document.to_json(),
        json!({"name": "home", "services": {"api": {"command": "a"}, "web": {"command": "b"}}})
    );
    write(
        "40-clash.yaml",
        "name: other\nservices:\n  api: {instances: 2}\n  web: [\n",
    );
    let base = directory.path().display();
    assert_eq!(
        said(read()),
        [format!(
            "{base}/40-clash.yaml:4:9: found nothing where a value is expected"
        )]
    );
    write(
        "40-clash.yaml",
        "name: other\nservices:\n  api: {instances: 2}\n",
    );
    let base = directory.path().display();
    assert_eq!(
        said(read()),
        [
            format!(
                "{base}/40-clash.yaml:1:1: `name` is in two files, first at {base}/10-base.yaml:1:1"
            ),
            format!(
                "{base}/40-clash.yaml:3:3: `api` is in two files, first at {base}/10-base.yaml:3:3"
            ),
        ]
    );
}

#[test]
fn files_that_are_not_there_or_not_text_are_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("gone.yaml");
    let faults = Sources::new().path(&missing).expect_err("it is not there");
    assert_eq!(
        faults[0].message,
        format!("there is no file {}", missing.display())
    );
    let faults = Sources::new()
        .path(directory.path())
        .expect_err("it is empty");
    assert!(
        faults[0]
            .message
            .ends_with("has no file that ends with `.yaml`")
    );

    assert_eq!(
        said(Sources::new().file("a.yaml", b"name: x\nb: \xff\n".to_vec())),
        ["a.yaml:2:4: the byte 0xFF is not UTF-8"]
    );
    let large = vec![b'#'; alicia_file::FILE_BYTES_MAX + 1];
    assert_eq!(
        said(Sources::new().file("a.yaml", large)),
        ["a.yaml:1:1: this file is larger than 4 MiB"]
    );
}

#[test]
fn a_part_becomes_a_type_or_a_fault_at_its_place() {
    let document = Document::parse(Sources::new().file("a.yaml", "a:\n  - 1\n  - x\nb: ~\n"));
    let document = document.expect("it is good");
    let fault = document.get::<Vec<u32>>("/a").expect_err("x is no number");
    assert_eq!(fault.origin.to_string(), "a.yaml:3:5");
    assert_eq!(document.get::<u32>("/b").expect("null is none"), None);
    assert_eq!(document.get::<u32>("/c").expect("nothing is none"), None);
    assert_eq!(document.get::<u32>("/a/0").expect("a number"), Some(1));
}
