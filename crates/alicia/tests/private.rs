//! What only its owner may read: every file of a house, whatever the umask; and that host and keeper leave no core files.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use alicia_testkit::house::House;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const FILE: &str = "
services:
  api:
    command: [sh, -c, 'echo started; exec sleep 1000']
    secrets: [db]
";

/// What others may use, and how. They may pass these directories, but not list them: services of other users open their own
/// token and socket by name. On the socket of renewals the kernel says who asks.
const OPEN: [(&str, u32); 4] = [
    ("credentials", 0o011),
    ("keeper", 0o011),
    ("notify", 0o011),
    ("renew.sock", 0o066),
];

/// The modes of everything below that others could use.
fn open_places(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        let name = entry.file_name().into_string().unwrap();
        let allowed = OPEN
            .iter()
            .find(|(open, _)| *open == name)
            .map_or(0, |(_, mode)| *mode);
        let kind = metadata.file_type();
        if metadata.mode() & 0o077 & !allowed != 0 && !kind.is_symlink() {
            let what = if kind.is_socket() { "socket" } else { "file" };
            found.push(format!(
                "{what} {} {:o}",
                entry.path().display(),
                metadata.mode() & 0o777
            ));
        }
        if metadata.is_dir() {
            open_places(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn everything_in_the_data_directory_is_for_its_owner_only() {
    let house = House::new(ALICIA, FILE);
    let open = |arguments: &[&str]| {
        let command = house.command(arguments);
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "umask 000; exec \"$0\" \"$@\""])
            .arg(command.get_program())
            .args(command.get_args());
        shell.current_dir(house.path()).env("HOME", house.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    open(&["secret", "set", "db", "--generate"]);
    open(&["up", "-d"]);
    open(&["key", "create", "reader"]);
    open(&["restart", "api"]);
    let mode = std::fs::metadata(house.data()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o700, "{mode:o}");
    let mut found = Vec::new();
    open_places(&house.data(), &mut found);
    assert!(found.is_empty(), "others may use: {found:#?}");
    assert!(
        house.data().join("secrets/vault.json").exists()
            && house.data().join("data/host.db").exists()
    );
}

#[tokio::test]
async fn host_and_keeper_leave_no_core() {
    let house = House::new(ALICIA, FILE);
    house.says(&["secret", "set", "db", "--generate"]).exits(0);
    house.says(&["up", "-d"]).exits(0);
    let own: Vec<u32> = house
        .processes()
        .into_iter()
        .filter(|it| it.service.is_none())
        .map(|it| it.pid)
        .collect();
    assert!(own.len() >= 2, "{own:?}");
    for pid in own {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}
