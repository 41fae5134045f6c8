//! The text exposition format of Prometheus (version 0.0.4): written by modules, read by any scraper.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The kind of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// Collects families; each module writes under its own prefix.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
    prefix: String,
}

#[derive(Debug)]
struct Family {
    kind: MetricKind,
    help: &'static str,
    samples: Vec<String>,
}

impl Exposition {
    /// From here on names get the prefix `alicia_<module>_`.
    pub fn begin(&mut self, module: &str) {
        self.prefix = format!("alicia_{module}_");
    }

    /// A counter: `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        debug_assert!(name.ends_with("_total"), "a counter ends in _total: {name}");
        self.sample(MetricKind::Counter, (name, help), labels, value);
    }

    /// A gauge; the unit is the end of its name: `memory_bytes`, `uptime_seconds`.
    pub fn gauge(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        self.sample(MetricKind::Gauge, (name, help), labels, value);
    }

    fn sample(
        &mut self,
        kind: MetricKind,
        (name, help): (&str, &'static str),
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let name = format!("{}{name}", self.prefix);
        let sample = format!("{name}{} {}", label_text(labels), number(value));
        let family = self.families.entry(name).or_insert_with(|| Family {
            kind,
            help,
            samples: Vec::new(),
        });
        family.samples.push(sample);
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            let kind = match family.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            writeln!(
                text,
                "# HELP {name} {}\n# TYPE {name} {kind}",
                escape(family.help, false)
            )
            .and_then(|()| {
                family
                    .samples
                    .iter()
                    .try_for_each(|line| writeln!(text, "{line}"))
            })
            .expect("writing to a String cannot fail");
        }
        text
    }
}

fn label_text(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value, true)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

fn escape(text: &str, in_label: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if in_label {
        text.replace('"', "\\\"")
    } else {
        text
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 {
            "+Inf".to_owned()
        } else {
            "-Inf".to_owned()
        }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_together_and_escaped() {
        let mut out = Exposition::default();
        out.begin("registry");
        out.gauge("entries", "Entries now.", &[("state", "present")], 2.0);
        out.counter("refused_total", "Refused registrations.", &[], 1e21);
        out.gauge("entries", "Entries now.", &[("state", "a\"b\\c\nd")], 0.5);
        assert_eq!(
            out.text(),
            "# HELP alicia_registry_entries Entries now.\n\
             # TYPE alicia_registry_entries gauge\n\
             alicia_registry_entries{state=\"present\"} 2\n\
             alicia_registry_entries{state=\"a\\\"b\\\\c\\nd\"} 0.5\n\
             # HELP alicia_registry_refused_total Refused registrations.\n\
             # TYPE alicia_registry_refused_total counter\n\
             alicia_registry_refused_total 1000000000000000000000\n"
        );
    }
}
