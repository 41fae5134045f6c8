//! What a command said, and what somebody hears on the bus.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::until;

/// A command that ended.
#[derive(Debug)]
pub struct Said {
    /// What was typed.
    pub line: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    pub(super) fn new(line: String, output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("commands print UTF-8");
        Self {
            line,
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Demands this exit code.
    ///
    /// # Panics
    /// When it is another one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Demands that each of these is somewhere in the output.
    ///
    /// # Panics
    /// When one is not.
    #[track_caller]
    pub fn tells(self, words: &[&str]) -> Self {
        let text = self.text();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {self}");
        }
        self
    }

    /// Everything that was printed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    #[expect(clippy::panic, reason = "a test fails with what was said")]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "alicia {} exits {:?} with\n{}{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// A command that goes on and writes JSON lines. It ends when this is dropped.
#[derive(Debug)]
pub struct Hearing {
    command: Child,
    output: PathBuf,
}

impl Hearing {
    pub(super) fn start(mut command: Command, output: PathBuf) -> Self {
        let file = File::create(&output).expect("a file for what is heard");
        command.stdout(file).stderr(Stdio::inherit());
        let command = command.spawn().expect("the command starts");
        Self { command, output }
    }

    /// Every whole line so far.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }

    /// Waits until a line satisfies this, and gives it.
    ///
    /// # Panics
    /// When none does.
    pub async fn hears(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let find = || self.heard().into_iter().find(|line| is_it(line));
        until(&format!("{what} is heard"), || async { find().is_some() }).await;
        find().expect("it was just there")
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        drop(self.command.kill());
        drop(self.command.wait());
    }
}
