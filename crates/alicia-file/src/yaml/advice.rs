//! What a scanner error means to the person who wrote the line, and what to do about it.

/// A syntax error in the words of the reader.
pub(super) struct Advice {
    pub(super) message: String,
    pub(super) hint: String,
    /// A better column than that of the scanner, in characters from 0.
    pub(super) column: Option<usize>,
}

/// What the scanner says, what it means, and what to do; the first row that is contained in the error counts.
const TABLE: [(&str, &str, &str); 21] = [
    (
        "mapping values are not allowed",
        "found a `:` where no key can stand",
        "put a text that contains `: ` in quotes, and begin keys of one map in the same column",
    ),
    (
        "found unexpected end of stream",
        "a quoted text is not closed",
        "add the closing quote",
    ),
    (
        "found unexpected document indicator",
        "a quoted text is not closed",
        "add the closing quote before this line",
    ),
    (
        "unknown escape character",
        "found an unknown escape in double quotes",
        "write `\\\\` for a backslash, or use single quotes",
    ),
    (
        "expected ',' or ']'",
        "a list that starts with `[` is not closed",
        "add the missing `,` or `]`",
    ),
    (
        "expected ',' or '}'",
        "a `{` or a `[` is not closed",
        "add the missing `,` or `}`; a text that starts with `{` needs quotes",
    ),
    (
        "illegal placement of ':'",
        "found a `:` inside of brackets that are not closed",
        "add the missing `]` or `}` before this line",
    ),
    (
        "handle wasn't declared",
        "found a tag that is not known",
        "put a text that starts with `!` in quotes",
    ),
    (
        "while scanning a block scalar, did not find expected comment",
        "found text behind a `|` or `>`",
        "begin the text on the next line, or put it in quotes",
    ),
    (
        "unknown anchor",
        "this alias has no anchor before it",
        "write `&name` at the value first; a text that starts with `*` needs quotes",
    ),
    (
        "alphabetic or numeric character",
        "found `*` or `&` without a name",
        "put a text that starts with `*` or `&` in quotes",
    ),
    (
        "did not find expected '-'",
        "found something that is no item of this list",
        "begin each item with `- `, all in the same column",
    ),
    (
        "block sequence entries are not allowed",
        "found a list item where none can stand",
        "begin the list on a line of its own, below its key",
    ),
    (
        "simple key expect",
        "found a line that is neither `key: value` nor part of a value",
        "write a `:` and a space after the key",
    ),
    (
        "did not find expected key",
        "found a line that does not belong to the map around it",
        "begin keys of one map in the same column, and close quotes and brackets",
    ),
    (
        "invalid trailing content",
        "found text after a closing quote",
        "put the whole value in quotes, and double the quotes inside of it",
    ),
    (
        "did not find expected <document",
        "found text after the end of the document",
        "begin keys of one map in the same column",
    ),
    (
        "did not find expected node content",
        "found nothing where a value is expected",
        "write the value, and close brackets that are open before this line",
    ),
    (
        "misplaced bracket",
        "found a closing bracket without an opening one",
        "remove it, or put the text in quotes",
    ),
    (
        "anchor",
        "an anchor cannot be read here",
        "put a text that starts with `&` or `*` in quotes",
    ),
    (
        "invalid indentation",
        "this line is indented in a way that fits nothing around it",
        "begin keys of one map in the same column, with spaces",
    ),
];

/// The column from 0 of a tab before the first text of a line.
pub(super) fn tab_in_indent(line: &str) -> Option<usize> {
    line.chars()
        .take_while(|c| c.is_whitespace())
        .position(|c| c == '\t')
}

/// What to say about an error on this line, at this column from 0.
pub(super) fn of(error: &str, line: &str, column: usize) -> Advice {
    let tab = tab_in_indent(line);
    if error.contains("tab") || tab.is_some() {
        let message = match tab {
            Some(_) => "found a tab in the indentation",
            None => "found a tab where only spaces can stand",
        };
        return Advice {
            message: message.to_owned(),
            hint: "indent with spaces".to_owned(),
            column: tab,
        };
    }
    if let Some(found) = error.strip_prefix("unexpected character: ") {
        let found = found.chars().nth(1).unwrap_or_default();
        return Advice {
            message: format!("a text cannot start with `{found}` without quotes"),
            hint: "put the text in quotes".to_owned(),
            column: None,
        };
    }
    let known = TABLE.iter().find(|(part, ..)| error.contains(part));
    match known {
        Some((_, message, hint)) => Advice {
            message: (*message).to_owned(),
            hint: (*hint).to_owned(),
            column: None,
        },
        None if line.chars().nth(column) == Some('%') => Advice {
            message: "a text cannot start with `%` without quotes".to_owned(),
            hint: "put the text in quotes".to_owned(),
            column: None,
        },
        None => Advice {
            message: format!("this is not YAML: {error}"),
            hint: "check the indentation and the quotes of this line and the one before".to_owned(),
            column: None,
        },
    }
}
