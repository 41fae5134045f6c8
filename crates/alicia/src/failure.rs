//! How a command fails: what it says and with which exit code.

use std::process::ExitCode;

use alicia_contract::Problem;
use alicia_file::Fault;
use anstyle::{AnsiColor, Style};

/// The command did not do what was asked.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line or the file is wrong; clap uses the same code.
pub(crate) const EXIT_USAGE: u8 = 2;
/// No host runs, or it cannot be reached.
pub(crate) const EXIT_NO_HOST: u8 = 3;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file has faults.
    Faults { faults: Vec<Fault>, json: bool },
    /// The host refused, with its problem document.
    Refused(Box<Problem>),
    /// There is no host to talk to.
    NoHost(String),
    /// What was typed cannot be done; what to type instead.
    Usage(String),
    /// Anything else.
    Other(anyhow::Error),
}

pub(crate) type Outcome<T = ExitCode> = Result<T, Failure>;

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl Failure {
    /// Says it on standard error and gives the exit code.
    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Faults { faults, json: true } => {
                let text = serde_json::to_string_pretty(&faults).expect("faults are plain text");
                println!("{text}");
                ExitCode::from(EXIT_USAGE)
            }
            Self::Faults {
                faults,
                json: false,
            } => {
                for fault in &faults {
                    error_line(&fault.to_string());
                }
                let count = faults.len();
                anstream::eprintln!(
                    "{count} {} in the file; nothing was done",
                    plural(count, "fault")
                );
                ExitCode::from(EXIT_USAGE)
            }
            Self::Refused(problem) => {
                error_line(&format!("{} ({})", problem.detail, problem.code));
                for fault in &problem.faults {
                    anstream::eprintln!("  {}: {}", fault.pointer, fault.message);
                }
                ExitCode::from(EXIT_FAILED)
            }
            Self::NoHost(text) => {
                error_line(&text);
                ExitCode::from(EXIT_NO_HOST)
            }
            Self::Usage(text) => {
                error_line(&text);
                ExitCode::from(EXIT_USAGE)
            }
            Self::Other(error) => {
                // The chain of causes in one line: `failed to start the module broker: failed to bind …`.
                error_line(&format!("failed to {error:#}"));
                ExitCode::from(EXIT_FAILED)
            }
        }
    }
}

fn error_line(text: &str) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    anstream::eprintln!("{red}error{red:#}: {text}");
}

/// `1 fault`, `2 faults`.
pub(crate) fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}
