//! Reading YAML: positions, limits, and what is refused.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::layer::Layer;

fn read(text: &str) -> Result<Node, Vec<Fault>> {
    let mut layers = Layers::default();
    let layer = layers.add(Layer::file("alicia.yaml", text));
    parse(text, layer, &layers, Dialect::Own)
}

fn faults(text: &str) -> Vec<String> {
    let faults = read(text).expect_err(text);
    faults
        .iter()
        .map(|fault| {
            fault
                .to_string()
                .lines()
                .next()
                .expect("a first line")
                .to_owned()
        })
        .collect()
}

#[test]
fn a_text_becomes_a_tree_with_places() {
    let node =
        read("name: home\nservices:\n  api:\n    command: [a, \"b c\"]\n").expect("good YAML");
    let expected: Value = json!({"name": "home", "services": {"api": {"command": ["a", "b c"]}}});
    assert_eq!(node.to_json(), expected);
    let place = |pointer: &str| {
        let (found, exact) = node.find(pointer);
        assert!(exact, "{pointer}");
        (
            found.place().line,
            found.place().column,
            found.place().width,
        )
    };
    assert_eq!(place("/name"), (1, 7, 4));
    assert_eq!(place("/services/api"), (3, 3, 3));
    assert_eq!(place("/services/api/command/1"), (4, 18, 5));
}

#[test]
fn an_empty_text_is_nothing() {
    for text in ["", "\n", "# only words\n", "---\n", "\u{feff}"] {
        assert_eq!(
            read(text).expect("good YAML").to_json(),
            Value::Null,
            "{text:?}"
        );
    }
}

#[test]
fn aliases_are_written_out() {
    let node = read("a: &x {k: 1}\nb: *x\n").expect("good YAML");
    assert_eq!(node.to_json(), json!({"a": {"k": 1}, "b": {"k": 1}}));
}

#[test]
fn a_whole_number_is_a_key_and_the_same_one_in_quotes() {
    let node = read("codes: {75: a, \"3\": b}\n8080: c\n").expect("good YAML");
    assert_eq!(
        node.to_json(),
        json!({"codes": {"75": "a", "3": "b"}, "8080": "c"})
    );
    let twice =
        "alicia.yaml:2:1: the key `3` is here for the second time, first at line 1, column 1";
    assert_eq!(faults("3: a\n\"3\": b\n"), [twice]);
    for text in ["0x10: a\n", "-1: a\n", "1.0: a\n", "true: a\n"] {
        assert_eq!(faults(text).len(), 1, "{text}");
    }
}

#[test]
fn several_faults_are_found_at_once() {
    assert_eq!(
        faults("a: 1\n8.5: x\na: 2\nb: !secret y\n"),
        [
            "alicia.yaml:2:1: found the key 8.5, which is not text",
            "alicia.yaml:3:1: the key `a` is here for the second time, first at line 1, column 1",
            "alicia.yaml:4:4: found the tag `!secret`, which does not fit here",
        ]
    );
}

#[test]
fn each_syntax_error_says_where_and_what() {
    let mut wrong = Vec::new();
    let mut check = |text: &str, expected: &str| {
        let found = read(text).expect_err(text);
        let [fault] = &found[..] else {
            panic!("{text:?}: {found:?}")
        };
        let origin = &fault.origin;
        let hint = fault
            .hint
            .as_deref()
            .expect("each syntax error says what to do");
        let said = format!("{origin}: {} | {hint}", fault.message);
        if said != format!("alicia.yaml:{expected}") {
            wrong.push((text.to_owned(), said));
        }
    };
    let tab = "found a tab in the indentation | indent with spaces";
    check("a:\n\tb: 1\n", &format!("2:1: {tab}"));
    check("a:\n  b: 1\n\tc: 1\n", &format!("3:1: {tab}"));
    check(
        "a: b: c\n",
        "1:5: found a `:` where no key can stand | put a text that contains `: ` in quotes, and begin keys of one map in the same column",
    );
    check(
        "a: \"b\n",
        "1:4: a quoted text is not closed | add the closing quote",
    );
    check(
        "a: @b\n",
        "1:4: a text cannot start with `@` without quotes | put the text in quotes",
    );
    check(
        "a: %b\n",
        "1:4: a text cannot start with `%` without quotes | put the text in quotes",
    );
    check(
        "a: [b, c\nd: 1\n",
        "2:2: found a `:` inside of brackets that are not closed | add the missing `]` or `}` before this line",
    );
    check(
        "a: *b\n",
        "1:4: this alias has no anchor before it | write `&name` at the value first; a text that starts with `*` needs quotes",
    );
    check(
        "a: &x [*x]\n",
        "1:8: this alias stands inside of what it stands for | write the value out",
    );
    check(
        "a: 1\n---\nb: 2\n",
        "2:1: a second document starts here, expected one in a file | remove the `---`, or move what follows to a file of its own",
    );
    check(
        "a: \0\n",
        "1:4: found the control character U+0000 | remove it, or write it as an escape in double quotes",
    );
    check(
        "{{ name }}: 1\n",
        "1:1: found a list or a map as a key, expected text | write the key as text; a value that starts with `{` or `[` needs quotes",
    );
    check(
        "a: 'it's'",
        "1:8: found text after a closing quote | put the whole value in quotes, and double the quotes inside of it",
    );
    check(
        "a:\n  b: 1\n c: 2",
        "3:2: found a line that does not belong to the map around it | begin keys of one map in the same column, and close quotes and brackets",
    );
    check(
        "a: \"\\d\"",
        "1:4: found an unknown escape in double quotes | write `\\\\` for a backslash, or use single quotes",
    );
    check(
        "a: - b",
        "1:4: found a list item where none can stand | begin the list on a line of its own, below its key",
    );
    check(
        "a: b\nc",
        "2:2: found a line that is neither `key: value` nor part of a value | write a `:` and a space after the key",
    );
    check(
        "a:\n  - b\n  c: d",
        "3:3: found something that is no item of this list | begin each item with `- `, all in the same column",
    );
    check(
        "a: {b: 1",
        "1:9: a `{` or a `[` is not closed | add the missing `,` or `}`; a text that starts with `{` needs quotes",
    );
    check(
        "a: *",
        "1:4: found `*` or `&` without a name | put a text that starts with `*` or `&` in quotes",
    );
    check(
        "a: `b`",
        "1:4: a text cannot start with ``` without quotes | put the text in quotes",
    );
    check(
        "a: !x!y z",
        "1:4: found a tag that is not known | put a text that starts with `!` in quotes",
    );
    check(
        "a: >x\n b",
        "1:4: found text behind a `|` or `>` | begin the text on the next line, or put it in quotes",
    );
    assert_eq!(wrong, []);
}

#[test]
fn what_blows_up_is_refused_quickly() {
    #[expect(clippy::disallowed_methods, reason = "the test measures real time")]
    let started = Instant::now();
    assert!(faults(&"[".repeat(10_000))[0].contains("nested more than 64 levels"));
    assert!(faults(&"- ".repeat(10_000))[0].contains("nested more than 64 levels"));
    assert!(faults(&"{a: ".repeat(10_000))[0].contains("nested more than 64 levels"));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(", ");
        writeln!(bomb, "a{n}: &a{n} [{aliases}]").expect("a string takes all");
    }
    assert!(faults(&bomb)[0].contains("aliases written out"));
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1 << 20),
        vec!["*a"; 40].join(", ")
    );
    assert!(faults(&long)[0].contains("aliases written out"));
    // Anchors around anchors: each would keep a copy of all inside.
    let inner = vec!["x"; 100_000].join(",");
    let (open, close): (String, String) = (0..50).map(|n| (format!("&a{n} ["), "]")).unzip();
    let nested = faults(&format!("a: {open}{inner}{close}\n"));
    assert!(nested[0].contains("aliases written out"), "{nested:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "took {took:?}");
}

#[test]
fn merge_keys_of_other_programs_are_followed_and_do_not_replace_own_keys() {
    let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 9\nd: {80: web}\n";
    let mut layers = Layers::default();
    let layer = layers.add(Layer::file("compose.yaml", text));
    let node = parse(text, layer, &layers, Dialect::Foreign).expect("reads");
    let json = node.to_json();
    assert_eq!(json["c"], serde_json::json!({"x": 9, "y": 2, "z": 4}));
    assert_eq!(json["d"], serde_json::json!({"80": "web"}));
    let wrong = "c: {<<: 3}\n";
    let layer = layers.add(Layer::file("compose.yaml", wrong));
    let faults = parse(wrong, layer, &layers, Dialect::Foreign).expect_err("is refused");
    assert!(faults[0].message.contains("no map"), "{faults:?}");
    assert!(parse(text, layer, &layers, Dialect::Own).is_err());
}
