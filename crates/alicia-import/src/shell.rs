//! Command lines that another program gave to a shell: with one where they need one, without where they do not.

use serde_json::{Value, json};

/// What only a shell understands. Quotes and backslashes are understood without one.
const SHELL_CHARACTERS: [char; 14] = [
    '|', '&', ';', '<', '>', '(', ')', '$', '`', '*', '?', '[', '#', '~',
];

/// A command that ran in this shell.
pub(crate) fn command(text: &str, shell: &str) -> Value {
    match needs_shell(text) {
        true => json!([shell, "-c", text]),
        false => json!(text.trim()),
    }
}

/// Whether a command means something else without a shell.
pub(crate) fn needs_shell(text: &str) -> bool {
    let begins_with_variable = text
        .split_whitespace()
        .next()
        .is_some_and(|word| word.contains('=') && !word.contains('/'));
    let several_lines = text.trim().contains('\n');
    let builtin = [
        "cd", "exec", "source", ".", "export", "set", "ulimit", "trap", "eval",
    ];
    let is_builtin = text
        .split_whitespace()
        .next()
        .is_some_and(|word| builtin.contains(&word));
    text.contains(SHELL_CHARACTERS)
        || begins_with_variable
        || several_lines
        || is_builtin
        || shell_words::split(text).is_err()
}

/// A word as a shell reads it back.
pub(crate) fn quote(word: &str) -> String {
    shell_words::quote(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_used_where_one_is_needed() {
        for (text, expect) in [
            (
                "node server.js --port 3000",
                json!("node server.js --port 3000"),
            ),
            ("python 'a b.py'", json!("python 'a b.py'")),
            (
                "node s.js --port $PORT",
                json!(["sh", "-c", "node s.js --port $PORT"]),
            ),
            (
                "cd web && npm start",
                json!(["sh", "-c", "cd web && npm start"]),
            ),
            ("A=1 run", json!(["sh", "-c", "A=1 run"])),
            ("cd web", json!(["sh", "-c", "cd web"])),
        ] {
            assert_eq!(command(text, "sh"), expect, "{text}");
        }
    }
}
