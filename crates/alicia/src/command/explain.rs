//! `alicia explain`: why an instance is where it is, as a story.

use std::process::ExitCode;

use alicia_contract::orchestrator::{
    Explanation, FleetStatus, InstanceState, SlotExplanation, Step, StepKind,
};
use anstyle::{AnsiColor, Style};
use clap::Args;

use crate::api::{ApiClient, quoted};
use crate::cli::Global;
use crate::failure::Outcome;
use crate::show;

/// `alicia explain`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia explain api
  alicia explain api-2
  alicia explain api --json | jq '.slots[0].steps'")]
pub(crate) struct Explain {
    /// A service, or one of its instances.
    #[arg(value_name = "SERVICE[-SLOT]")]
    pub(crate) what: String,
}

pub(super) async fn run(global: &Global, explain: &Explain) -> Outcome {
    let api = ApiClient::find(global)?;
    let status: FleetStatus = api.get("/api/orchestrator/status").await?;
    let (service, slot) = subject(&status, &explain.what);
    let query = slot.map(|slot| format!("?slot={slot}")).unwrap_or_default();
    let path = format!(
        "/api/orchestrator/services/{}/explain{query}",
        quoted(&service)
    );
    let told: Explanation = api.get(&path).await?;
    if global.json {
        show::json(&told)?;
    } else {
        anstream::print!("{}", story(&told));
    }
    Ok(ExitCode::SUCCESS)
}

/// `api-2` is the instance, unless a service is called so.
fn subject(status: &FleetStatus, what: &str) -> (String, Option<u32>) {
    let is_service = |name: &str| {
        status
            .services
            .iter()
            .any(|service| service.service.as_str() == name)
    };
    let split = what
        .rsplit_once('-')
        .and_then(|(name, slot)| Some((name, slot.parse().ok()?)));
    match split {
        Some((name, slot)) if !is_service(what) && is_service(name) => {
            (name.to_owned(), Some(slot))
        }
        _ => (what.to_owned(), None),
    }
}

/// The whole story as text.
fn story(told: &Explanation) -> String {
    let mut text = format!("{}\n", told.summary);
    for slot in &told.slots {
        // With one instance the first line has said it.
        let title = (told.slots.len() > 1).then(|| slot.summary.clone());
        text.push_str(&of_slot(slot, title));
    }
    for needed in &told.held_back_by {
        text.push_str(&format!("\nIt waits for {}:\n", needed.service));
        for line in story(needed).lines() {
            let line = if line.is_empty() {
                String::new()
            } else {
                format!("  {line}")
            };
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

fn of_slot(slot: &SlotExplanation, title: Option<String>) -> String {
    let mut text = String::from("\n");
    if let Some(title) = title {
        text.push_str(&format!("{title}\n"));
    }
    if slot.steps.is_empty() {
        text.push_str("  Nothing is known of its past.\n");
    }
    for step in &slot.steps {
        text.push_str(&line(step));
    }
    if let Some(next) = &slot.next {
        let mark = match slot.state {
            InstanceState::Failed => AnsiColor::Red,
            _ => AnsiColor::Yellow,
        };
        text.push_str(&format!("  {} {next}\n", painted("next", mark)));
    }
    text
}

fn line(step: &Step) -> String {
    let times = match step.times {
        1 => String::new(),
        times => format!(" ({times} times, last then)"),
    };
    let cause = if step.cause.is_unknown() {
        String::new()
    } else {
        format!(" [{}]", step.cause.as_str())
    };
    let colour = match step.kind {
        StepKind::Exit => AnsiColor::Yellow,
        StepKind::Command => AnsiColor::Cyan,
        _ => AnsiColor::White,
    };
    let mut text = format!(
        "  {}  {}{cause}{times}\n",
        show::time(step.at),
        painted(&step.text, colour)
    );
    for output in &step.last_lines {
        text.push_str(&format!("      | {output}\n"));
    }
    text
}

fn painted(text: &str, colour: AnsiColor) -> String {
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alicia_contract::orchestrator::{ExitCause, ServiceStatus};

    fn status(names: &[&str]) -> FleetStatus {
        let service = |name: &&str| -> ServiceStatus {
            serde_json::from_value(serde_json::json!({
                "service": name, "description": null, "wanted": 1, "depends_on": {},
                "restart": "always", "groups": [], "instances": [],
            }))
            .expect("a service")
        };
        FleetStatus {
            services: names.iter().map(service).collect(),
            ..FleetStatus::default()
        }
    }

    #[test]
    fn an_instance_is_told_from_a_service_whose_name_ends_in_a_number() {
        let status = status(&["api", "web-2"]);
        let check = |what: &str, service: &str, slot| {
            assert_eq!(subject(&status, what), (service.to_owned(), slot), "{what}");
        };
        check("api", "api", None);
        check("api-2", "api", Some(2));
        check("web-2", "web-2", None);
        check("web-2-1", "web-2", Some(1));
        check("nobody-3", "nobody-3", None);
        check("api-x", "api-x", None);
    }

    #[test]
    fn a_story_reads_from_the_first_cause_to_what_comes_next() {
        let step = |at, kind, text: &str, times| Step {
            at,
            kind,
            text: text.to_owned(),
            by: None,
            cause: match kind {
                StepKind::Exit => ExitCause::PortTaken,
                _ => ExitCause::Unknown,
            },
            times,
            last_lines: match kind {
                StepKind::Exit => vec!["bind: address already in use".to_owned()],
                _ => Vec::new(),
            },
        };
        let mut told = Explanation {
            service: alicia_contract::ServiceName::new("web").expect("a name"),
            summary: "web-1 is waiting since 5s: waits for api.".to_owned(),
            at: 9.0,
            slots: vec![SlotExplanation {
                instance: "web-1".to_owned(),
                state: InstanceState::Waiting,
                since: 4.0,
                summary: String::new(),
                steps: Vec::new(),
                next: None,
            }],
            held_back_by: Vec::new(),
        };
        let mut needed = told.clone();
        needed.service = alicia_contract::ServiceName::new("api").expect("a name");
        needed.summary = "api-1 is failed.".to_owned();
        needed.slots[0].steps = vec![
            step(1.0, StepKind::Command, "key/ann asked to start it", 1),
            step(2.0, StepKind::Exit, "it ended: exit code 1", 6),
        ];
        needed.slots[0].next = Some("it is tried again in 5m 0s".to_owned());
        told.held_back_by.push(needed);
        let text = anstream::adapter::strip_str(&story(&told)).to_string();
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("{part} in {text}"))
        };
        assert!(at("web-1 is waiting") < at("It waits for api:"), "{text}");
        assert!(
            at("key/ann asked") < at("it ended: exit code 1 [port-taken] (6 times"),
            "{text}"
        );
        assert!(
            at("      | bind: address") < at("next it is tried again"),
            "{text}"
        );
    }
}
