//! Environment variables: their names, and numbers that would not arrive as they are written.

use super::Service;
use crate::source::VARIABLE_PREFIX;
use crate::tree::pointer_to;

pub(super) fn check(service: &mut Service<'_, '_>) {
    let environment = service.pointer("environment");
    for name in service.spec.environment.keys() {
        let pointer = pointer_to(&environment, name);
        if let Some((message, hint)) = fault_of_name(name) {
            service.report.key(&pointer, message, hint);
        }
        let document = service.report.document;
        if let Some(written) = document.and_then(|document| document.number_as_written(&pointer)) {
            let message = format!("`{written}` is a number, and would arrive in another form");
            service.report.value(
                &pointer,
                message,
                format!("write it in quotes: `\"{written}\"`"),
            );
        }
    }
}

fn fault_of_name(name: &str) -> Option<(String, &'static str)> {
    if !is_name(name) {
        let message = format!("`{name}` is no name of an environment variable");
        return Some((
            message,
            "use letters, digits and `_`, and no digit at the start",
        ));
    }
    name.starts_with(VARIABLE_PREFIX).then(|| {
        let message = format!("`{name}` is set by Alicia itself");
        (message, "choose a name that does not start with ALICIA_")
    })
}

/// Whether a text names an environment variable (POSIX.1-2024, base definitions 8.1).
pub(crate) fn is_name(text: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphabetic() || c == b'_';
    match text.as_bytes() {
        [first, rest @ ..] => {
            letter(*first) && rest.iter().all(|c| letter(*c) || c.is_ascii_digit())
        }
        [] => false,
    }
}
