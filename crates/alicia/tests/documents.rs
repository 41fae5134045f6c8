//! What the pages for people say is true: each example of a file is a good file.

use alicia_testkit::house::House;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

/// The blocks of a page that are whole files.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("\n```yaml\n").skip(1);
    blocks
        .filter_map(|block| Some(block.split_once("\n```")?.0.to_owned()))
        .collect()
}

#[test]
fn every_example_of_a_file_is_good() {
    let pages = [
        ("README.md", include_str!("../../../README.md"), 1),
        ("docs/file.md", include_str!("../../../docs/file.md"), 60),
        (
            "docs/notifications.md",
            include_str!("../../../docs/notifications.md"),
            1,
        ),
    ];
    let mut faults = Vec::new();
    for (name, page, least) in pages {
        let examples = examples(page);
        assert!(
            examples.len() >= least,
            "{name}: {} examples",
            examples.len()
        );
        for example in examples {
            let house = House::new(ALICIA, &example);
            let said = house.says(&["check"]);
            if said.code != Some(0) {
                faults.push(format!("{name}:\n{example}\n{}", said.stderr));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn an_example_with_a_mistake_would_be_found() {
    let page = "text\n\n```yaml\nservices: {a: {comand: x}}\n```\n\nmore\n";
    let examples = examples(page);
    assert_eq!(examples, ["services: {a: {comand: x}}"]);
    House::new(ALICIA, &examples[0])
        .says(&["check"])
        .exits(2)
        .tells(&["comand"]);
}
