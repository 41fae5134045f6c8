//! Whether whatever fits one schema also fits another one. Careful: what cannot be shown to fit is a fault.

use std::collections::HashSet;
use std::sync::LazyLock;

use alicia_contract::problem::InputFault;
use serde_json::{Map, Value};

use crate::words::fault;
use crate::{FAULTS_MAX, escape};

/// Keywords that say nothing about what fits.
const REMARKS: [&str; 13] = [
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
];

/// Keywords that are compared below.
const COMPARED: [&str; 16] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "anyOf",
];

/// Where `wide` refuses, or may refuse, what fits `narrow`; empty when it takes all of it. Pointers are into
/// the values, `*` stands for each item of a list.
#[must_use]
pub fn compare(narrow: &Value, wide: &Value) -> Vec<InputFault> {
    let mut comparison = Comparison {
        narrow,
        wide,
        steps: STEPS_MAX,
        open: Vec::new(),
        faults: Vec::new(),
    };
    comparison.part(narrow, wide, "");
    comparison.faults.truncate(FAULTS_MAX);
    comparison.faults
}

/// Parts that are compared: of schemas of ordinary size, all.
const STEPS_MAX: u32 = 2_000;

/// Parts that are compared within each other. The comparison goes down as deep on the stack.
const DEPTH_MAX: usize = 64;

/// The schema of which nothing is said.
static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// The schema that takes everything.
static ANYTHING: Value = Value::Bool(true);

struct Comparison<'s> {
    narrow: &'s Value,
    wide: &'s Value,
    steps: u32,
    /// The pairs that are being compared, the outermost first. A schema that refers to itself comes back to one.
    open: Vec<(&'s Value, &'s Value)>,
    faults: Vec<InputFault>,
}

impl<'s> Comparison<'s> {
    fn part(&mut self, narrow: &'s Value, wide: &'s Value, at: &str) {
        let (narrow, wide) = (follow(self.narrow, narrow), follow(self.wide, wide));
        let means_the_same = !refers(narrow) || self.narrow == self.wide;
        let is_same = narrow == wide && means_the_same;
        if is_same || takes_all(wide) || narrow == &Value::Bool(false) || self.is_open(narrow, wide)
        {
            return;
        }
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 || self.open.len() >= DEPTH_MAX {
            self.fault(at, "is too deep to be compared");
            return;
        }
        self.open.push((narrow, wide));
        self.within(narrow, wide, at);
        self.open.pop();
    }

    /// Whether this pair is being compared further out: then it fits as far as the rest does.
    fn is_open(&self, narrow: &Value, wide: &Value) -> bool {
        let is_it = |(one, other): &(&Value, &Value)| {
            std::ptr::eq(*one, narrow) && std::ptr::eq(*other, wide)
        };
        self.open.iter().any(is_it)
    }

    fn within(&mut self, narrow: &'s Value, wide: &'s Value, at: &str) {
        if let Some(choices) = narrow.get("anyOf").and_then(Value::as_array) {
            // What fits one of the choices must fit, whichever it is.
            choices
                .iter()
                .for_each(|choice| self.part(choice, wide, at));
            return;
        }
        if let Some(choices) = wide.get("anyOf").and_then(Value::as_array)
            && !choices.iter().any(|choice| self.fits(narrow, choice))
        {
            self.fault(at, "cannot be shown to fit one of the choices of `anyOf`");
        }
        let Some(wide) = wide.as_object() else {
            return self.fault(at, "nothing is taken here");
        };
        // A schema of which nothing is said takes everything.
        let narrow = narrow.as_object().unwrap_or(&NOTHING);
        self.unknown(narrow, wide, at);
        self.types(narrow, wide, at);
        self.choices(narrow, wide, at);
        self.bounds(narrow, wide, at);
        self.properties(narrow, wide, at);
        self.items(narrow, wide, at);
    }

    /// Whether a part is shown to fit, on a trial.
    fn fits(&mut self, narrow: &'s Value, wide: &'s Value) -> bool {
        let mut trial = Self {
            faults: Vec::new(),
            open: self.open.clone(),
            ..*self
        };
        trial.part(narrow, wide, "");
        self.steps = trial.steps;
        trial.faults.is_empty()
    }

    fn fault(&mut self, at: &str, message: &str) {
        self.faults.push(fault(at, message));
    }

    /// A keyword of the wide schema that is not compared must be there in the same words, and mean the same.
    fn unknown(&mut self, narrow: &Map<String, Value>, wide: &Map<String, Value>, at: &str) {
        for (name, value) in wide {
            let known = REMARKS.contains(&name.as_str()) || COMPARED.contains(&name.as_str());
            let is_reference = matches!(name.as_str(), "$ref" | "$dynamicRef");
            let means_the_same = !(is_reference || refers(value)) || self.narrow == self.wide;
            let is_there = narrow.get(name) == Some(value) && means_the_same;
            if !known && !is_there {
                self.fault(at, &format!("cannot be shown to fit `{name}`"));
            }
        }
    }

    fn types(&mut self, narrow: &Map<String, Value>, wide: &Map<String, Value>, at: &str) {
        let wanted = types(wide);
        if wanted.is_empty() {
            return;
        }
        let takes =
            |one: &str| wanted.contains(&one) || (one == "integer" && wanted.contains(&"number"));
        let own = types(narrow);
        if own.is_empty() {
            // The values themselves may say what they are.
            let values = values(narrow).unwrap_or_default();
            let fit = |value: &&Value| takes(type_of(value));
            if values.is_empty() || !values.iter().all(fit) {
                self.fault(
                    at,
                    &format!("may be anything, expected {}", wanted.join(" or ")),
                );
            }
            return;
        }
        for one in own.into_iter().filter(|one| !takes(one)) {
            let message = format!("may be of type {one}, expected {}", wanted.join(" or "));
            self.fault(at, &message);
        }
    }

    fn choices(&mut self, narrow: &Map<String, Value>, wide: &Map<String, Value>, at: &str) {
        let Some(wanted) = values(wide) else {
            return;
        };
        match values(narrow) {
            Some(own) => {
                // Both lists may be long.
                let wanted: HashSet<String> = wanted.into_iter().map(Value::to_string).collect();
                let is_other = |value: &&&Value| !wanted.contains(&value.to_string());
                for value in own.iter().filter(is_other).take(FAULTS_MAX) {
                    self.fault(at, &format!("may be {value}, which is not taken"));
                }
            }
            None => self.fault(at, "may be anything, expected one of a few values"),
        }
    }

    fn bounds(&mut self, narrow: &Map<String, Value>, wide: &Map<String, Value>, at: &str) {
        let number = |of: &Map<String, Value>, name: &str| of.get(name).and_then(Value::as_f64);
        let bounds = [
            ("number", "minimum", "exclusiveMinimum", true),
            ("number", "exclusiveMinimum", "minimum", true),
            ("number", "maximum", "exclusiveMaximum", false),
            ("number", "exclusiveMaximum", "maximum", false),
            ("string", "minLength", "", true),
            ("string", "maxLength", "", false),
            ("array", "minItems", "", true),
            ("array", "maxItems", "", false),
        ];
        for (kind, name, other, is_lower) in bounds {
            let Some(wanted) = number(wide, name) else {
                continue;
            };
            let is_within = |own: f64, is_open: bool| {
                let is_equal_open = own == wanted && (is_open || !name.starts_with("exclusive"));
                is_equal_open || if is_lower { own > wanted } else { own < wanted }
            };
            let same =
                number(narrow, name).is_some_and(|own| own == wanted || is_within(own, false));
            let open = other.starts_with("exclusive");
            let related = number(narrow, other).is_some_and(|own| is_within(own, open));
            if may_be(kind, narrow) && !same && !related {
                self.fault(at, &format!("may be outside of `{name}` {wanted}"));
            }
        }
    }

    fn properties(
        &mut self,
        narrow: &'s Map<String, Value>,
        wide: &'s Map<String, Value>,
        at: &str,
    ) {
        if !may_be("object", narrow) {
            return;
        }
        let named = |of: &'s Map<String, Value>| of.get("properties").and_then(Value::as_object);
        let (own, wanted) = (named(narrow), named(wide));
        for name in strings(wide.get("required")) {
            if !strings(narrow.get("required")).contains(&name) {
                self.fault(
                    &format!("{at}/{}", escape(name)),
                    "may be missing, and is required",
                );
            }
        }
        let is_false =
            |of: &Map<String, Value>| of.get("additionalProperties") == Some(&Value::Bool(false));
        let is_closed = is_false(wide);
        // A pattern of names lets in more than is named.
        let own_is_closed = is_false(narrow) && !narrow.contains_key("patternProperties");
        for (name, part) in own.into_iter().flatten() {
            let place = format!("{at}/{}", escape(name));
            match wanted.and_then(|wanted| wanted.get(name)) {
                Some(expected) => self.part(part, expected, &place),
                None if is_closed => self.fault(&place, "is not known here"),
                None => {
                    if let Some(expected) = wide.get("additionalProperties") {
                        self.part(part, expected, &place);
                    }
                }
            }
        }
        if own_is_closed {
            return;
        }
        if is_closed {
            self.fault(at, "may have more properties, which are not taken");
        }
        for (name, expected) in wanted.into_iter().flatten() {
            let is_said = own.is_some_and(|own| own.contains_key(name));
            if !is_said && !takes_all(follow(self.wide, expected)) {
                let place = format!("{at}/{}", escape(name));
                self.fault(&place, "may be anything, because nothing is said of it");
            }
        }
        let more = wide
            .get("additionalProperties")
            .filter(|more| !takes_all(more));
        if let Some(expected) = more.filter(|_| !is_closed) {
            let place = format!("{at}/*");
            if narrow.contains_key("patternProperties") {
                return self.fault(&place, "may be anything that a pattern of names lets in");
            }
            let own = narrow.get("additionalProperties").unwrap_or(&ANYTHING);
            self.part(own, expected, &place);
        }
    }

    fn items(&mut self, narrow: &'s Map<String, Value>, wide: &'s Map<String, Value>, at: &str) {
        let Some(items) = wide.get("items").filter(|items| !takes_all(items)) else {
            return;
        };
        if !may_be("array", narrow) {
            return;
        }
        let place = format!("{at}/*");
        let own = narrow.get("items").unwrap_or(&ANYTHING);
        // The first ones may have schemas of their own.
        let first = narrow.get("prefixItems").and_then(Value::as_array);
        let first = first.into_iter().flatten();
        first
            .chain([own])
            .for_each(|own| self.part(own, items, &place));
    }
}

/// Whether a schema takes every value.
fn takes_all(schema: &Value) -> bool {
    match schema {
        Value::Bool(all) => *all,
        Value::Null => true,
        Value::Object(fields) => fields.keys().all(|name| REMARKS.contains(&name.as_str())),
        _ => false,
    }
}

/// Whether a value that fits may be of this type.
fn may_be(kind: &str, schema: &Map<String, Value>) -> bool {
    let types = types(schema);
    let says = |name: &str| types.contains(&name);
    match values(schema) {
        Some(values) if types.is_empty() => values.iter().any(|value| {
            let found = type_of(value);
            found == kind || (found == "integer" && kind == "number")
        }),
        _ => types.is_empty() || says(kind) || (kind == "number" && says("integer")),
    }
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        several => strings(several),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The few values that fit, when the schema lists them.
fn values(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(one), _) => Some(vec![one]),
        (None, Some(Value::Array(several))) => Some(several.iter().collect()),
        _ => None,
    }
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}

/// What a reference inside of the schema points to.
fn follow<'s>(root: &'s Value, part: &'s Value) -> &'s Value {
    let mut part = part;
    // Chains are short; one that is not is left as it is, and then cannot be shown to fit.
    for _ in 0..8 {
        let target = part.get("$ref").and_then(Value::as_str);
        let others = part.as_object().into_iter().flat_map(Map::keys);
        if others
            .filter(|name| *name != "$ref")
            .any(|name| !REMARKS.contains(&name.as_str()))
        {
            return part;
        }
        let Some(found) = target
            .and_then(|target| target.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer))
        else {
            return part;
        };
        part = found;
    }
    part
}

/// Whether a part refers to another, so that equal words need not mean the same in two schemas.
fn refers(part: &Value) -> bool {
    match part {
        Value::Object(fields) => {
            fields.contains_key("$ref")
                || fields.contains_key("$dynamicRef")
                || fields.values().any(refers)
        }
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}
