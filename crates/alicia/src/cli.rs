//! What can be typed. The doc comments are the help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::explain::Explain;

/// Runs a fleet of services and agents on one machine, from one file, with one binary.
#[derive(Debug, Parser)]
#[command(
    name = "alicia",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:
  alicia up                    run the fleet of ./alicia.yaml, or a small example fleet when there is none
  alicia up -d                 the same in the background; returns when every service is ready or has failed
  alicia ps                    what runs
  alicia logs -f api           follow the output of a service
  alicia bus sub 'alicia/#'    see everything that is said
  alicia check                 look for faults in the file

Exit codes: 0 done, 1 it failed, 2 the command line or the file is wrong (plan: something would change), 3 no fleet runs."
)]
pub(crate) struct Cli {
    /// The same as --file, before the command: after it, `-f` is that of the command (`logs -f`).
    #[arg(short = 'f', value_name = "FILE", conflicts_with = "file", hide = true)]
    short_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What was typed.
    pub(crate) fn read() -> Self {
        let mut cli = Self::parse();
        cli.global.file = cli.short_file.take().or(cli.global.file);
        cli
    }
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The file, or a directory of fragments; before the command also -f. Default: ./alicia.yaml, else a built-in example fleet.
    #[arg(long, global = true, env = "ALICIA_FILE", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The data directory. Default: the file's `data`, else $XDG_STATE_HOME/alicia.
    #[arg(long, global = true, env = "ALICIA_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The address of a running host. Default: found in the data directory.
    #[arg(long, global = true, env = "ALICIA_API", value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The key for it. Default: the admin key in the data directory.
    #[arg(
        long,
        global = true,
        env = "ALICIA_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,
    /// Write JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Set a value of the file: `--set http.listen=127.0.0.1:4100`. May be given several times.
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) set: Vec<String>,
}

impl Global {
    /// `--set a.b=c` as JSON pointers and values.
    pub(crate) fn flags(&self) -> Vec<(String, String)> {
        let pointer = |name: &str| name.split('.').map(|level| format!("/{level}")).collect();
        let pair = |set: &String| {
            let (name, value) = set.split_once('=').unwrap_or((set, ""));
            (pointer(name), value.to_owned())
        };
        self.set.iter().map(pair).collect()
    }
}

/// A setting with its value, as one text.
fn name_and_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "found `{text}`, expected a name, `=` and a value: http.listen=127.0.0.1:4100"
        )),
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write an alicia.yaml to start from.
    Init(Init),
    /// Run the fleet: in the foreground with a live table, or with -d in the background.
    Up(Up),
    /// End the fleet and the host.
    Down(Down),
    /// Show whether the host, its modules and the services work.
    Status,
    /// List the instances.
    Ps,
    /// Show the output of services, or search in it.
    Logs(Logs),
    /// See who did what, and whether the log of it is whole.
    #[command(subcommand)]
    Audit(crate::command::audit::Audit),
    /// Store, list, rotate and remove secrets of services.
    #[command(subcommand)]
    Secret(crate::command::secret::SecretCommand),
    /// Start services that do not run.
    Start(Targets),
    /// Stop services.
    Stop(Targets),
    /// Stop services and start them again.
    Restart(Targets),
    /// Hold the processes of services still; `resume` lets them go on.
    Pause(Targets),
    /// Let paused services go on, and start parked ones now.
    Resume(Targets),
    /// Send a signal to the processes of a service.
    Signal(crate::command::signal::Signal),
    /// Say why an instance is where it is: the chain of causes, as a story.
    Explain(Explain),
    /// Change the number of instances of a service.
    Scale(Scale),
    /// Show alerts, take note of them, silence them, test who is notified of them.
    Alerts(crate::command::alerts::Alerts),
    /// Show how services are and were: state, uptime, latency, checks, history.
    Health(crate::command::health::Health),
    /// Show what services promise, what is left of the error budget, and how quickly it is burnt.
    Slo,
    /// Say what to do about what is wrong, with the evidence and the command to run.
    Suggest(crate::command::health::Suggest),
    /// Report on a time: availability, incidents, time to mend, slow checks, flapping.
    Report(crate::command::health::Report),
    /// Have a capability carried out by one instance that fits and is well.
    Call(Call),
    /// List who is registered and what they can do.
    Agents(Agents),
    /// Show the best instances for a capability, and why the others are not.
    Resolve(Resolve),
    /// Show what a version of the file would change, field by field, and why.
    Plan(crate::command::deploy::Plan),
    /// Put a version of the file in force: the smallest set of starts, stops and updates.
    Deploy(crate::command::deploy::Deploy),
    /// Take the settings of one service from the file.
    Update(crate::command::deploy::Update),
    /// Return to an earlier deployment.
    Rollback(crate::command::deploy::Rollback),
    /// List the deployments, or show one.
    Deployments(crate::command::deploy::Deployments),
    /// Take over a changed file.
    Reload,
    /// Speak and listen on the message bus.
    #[command(subcommand)]
    Bus(Bus),
    /// Look for faults in the file, without a host.
    Check(Check),
    /// Look at this machine and say what is wrong and how to mend it.
    Doctor,
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(Key),
    /// Make, list and take back join tokens, with which agents of others join.
    #[command(subcommand)]
    JoinToken(crate::command::join::JoinToken),
    /// Join a fleet as an agent that nobody there starts.
    Join(crate::command::join::Join),
    /// Agents that have joined, and the keys of all who may act.
    #[command(subcommand)]
    Identity(crate::command::join::Identity),
    /// Write a new service that runs as it is.
    #[command(subcommand)]
    New(New),
    /// Turn the files of compose, supervisord, pm2, process-compose, a Procfile or systemd into an alicia.yaml.
    Import(crate::command::import::Import),
    /// Print the JSON Schema of alicia.yaml, for editors.
    Schema,
    /// Run single modules, for example against a bus on another broker.
    Run(RunModules),
    /// Print a link that signs a browser in, once.
    Open,
    /// Print completions for a shell.
    Completions(Completions),
    /// The process that holds the services; started by `up`.
    #[command(hide = true)]
    Keeper(Keeper),
    /// Stands for a container; started by the orchestrator.
    #[command(hide = true, subcommand)]
    Container(crate::command::container::Container),
    /// A service of the built-in example fleet.
    #[command(hide = true)]
    Example(Example),
    /// Write the OpenAPI document.
    #[command(hide = true)]
    Openapi,
}

/// `alicia init`
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `alicia up`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  alicia up                 everything
  alicia up api worker      these, and what they need
  alicia up --profile dev   and the services of a profile
  alicia up -d && alicia ps")]
pub(crate) struct Up {
    /// Services or groups; with what they need. Default: all.
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Run in the background; return when every service is ready or has failed.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Start the services of this profile too.
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Vec<String>,
    /// How long -d waits, for example 2m.
    #[arg(long, default_value = "2m", value_name = "PERIOD")]
    pub(crate) wait: alicia_contract::Period,
    /// Write the log instead of a table.
    #[arg(long)]
    pub(crate) no_table: bool,
    /// This process is the one in the background.
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// `alicia down`
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// End the host only; the services go on, and the next `up` takes them over.
    #[arg(long)]
    pub(crate) keep_services: bool,
}

/// `alicia logs`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia logs api
  alicia logs -f --since 10m --grep error api
  alicia logs --since 24h --level warn
  alicia logs --trace 4bf92f3577b34da6a3ce929d0e0e4736 --json
  alicia logs --host --level error             what Alicia itself said")]
pub(crate) struct Logs {
    /// Services; default: all.
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Go on with what comes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many lines at first.
    #[arg(
        short = 'n',
        long,
        alias = "lines",
        default_value_t = 100,
        value_name = "LINES"
    )]
    pub(crate) tail: u32,
    /// Only lines of this last time, for example 10m.
    #[arg(long, value_name = "PERIOD")]
    pub(crate) since: Option<alicia_contract::Period>,
    /// Only lines that are older than this, for example 5m.
    #[arg(long, value_name = "PERIOD")]
    pub(crate) until: Option<alicia_contract::Period>,
    /// Only lines that contain this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// Only lines that are at least so grave. A line that says no level counts as info.
    #[arg(long, value_name = "LEVEL", value_parser = ["debug", "info", "warn", "error", "fatal"])]
    pub(crate) level: Option<String>,
    /// Only lines with this id in them: of a trace, a request, anything.
    #[arg(long, value_name = "ID")]
    pub(crate) trace: Option<String>,
    /// The log of Alicia itself; the same as the service `system`.
    #[arg(long, conflicts_with = "services")]
    pub(crate) host: bool,
}

/// Services or groups.
#[derive(Debug, Args)]
#[command(
    after_help = "A group stands for all services that name it in `groups`. What is done by hand holds until `alicia down`."
)]
pub(crate) struct Targets {
    /// Services or groups; default: all.
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Return at once instead of waiting until it is done.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `alicia scale`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alicia scale api 3     holds until the file's `instances` changes")]
pub(crate) struct Scale {
    /// The service.
    pub(crate) service: String,
    /// How many instances.
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) instances: u32,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `alicia call`
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    override_usage = "alicia call [OPTIONS] [SERVICE] CAPABILITY [JSON]",
    after_help = "Examples:
  alicia call sensors measure                        what the service `sensors` measures now
  alicia call notifier notify '{\"text\": \"tea\"}'    with an input
  alicia call tell-time                              the capability alone, when one service has it
  echo '{\"text\": \"tea\"}' | alicia call notify -    the input from standard input

The input is checked against the schema of the capability before it is sent, the output before it is shown.
Exit codes: 0 answered, 1 refused or failed, 2 the command line or the input is no JSON, 3 no fleet runs."
)]
pub(crate) struct Call {
    /// The service (may be left out), the capability, and the input as JSON or - for standard input. Default input: {}.
    #[arg(required = true, num_args = 1..=3, value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// A range of versions of the capability: `^1.2`, `>=1, <3`.
    #[arg(long, value_name = "RANGE")]
    pub(crate) version: Option<String>,
    /// A tag that the capability must have. May be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// How long it may take.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: alicia_contract::Period,
    /// It may be carried out again by another instance when the first one ended without an answer.
    #[arg(long)]
    pub(crate) retry: bool,
}

/// `alicia agents`
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  alicia agents                              who is there
  alicia agents --capability forecast        who has this capability
  alicia agents --label room=kitchen         who has this label
  alicia agents --card 01j9…                 one of them as an A2A agent card
  alicia agents --remove 01j9…               forget one that is gone for good"
)]
pub(crate) struct Agents {
    /// One instance, by its id; without it all.
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: Option<String>,
    /// The A2A agent card of the instance.
    #[arg(long, requires = "instance")]
    pub(crate) card: bool,
    /// Remove the instance: for one that is gone for good and does not say so.
    #[arg(long, requires = "instance", conflicts_with = "card")]
    pub(crate) remove: bool,
    /// Only those that have this capability.
    #[arg(long, value_name = "NAME")]
    pub(crate) capability: Option<String>,
    /// Only those with a version in this range: of the capability, or without one of the program.
    #[arg(long, value_name = "RANGE")]
    pub(crate) version: Option<String>,
    /// Only those of this presence: present, suspect, unverified, gone.
    #[arg(long, value_name = "PRESENCE")]
    pub(crate) status: Option<String>,
    /// Only those with this label: `room` or `room=kitchen`.
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
}

/// `alicia resolve`
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  alicia resolve forecast                          who is best
  alicia resolve forecast --version '^1.2' --tag eu
  alicia resolve forecast --input '{\"city\": \"Rome\"}'  whom this input fits
  alicia resolve forecast --prefer cost            the cheapest before the least loaded

Exit codes: 0 found, 1 nobody fits, 2 the command line is wrong, 3 no fleet runs."
)]
pub(crate) struct Resolve {
    /// The capability.
    pub(crate) capability: String,
    /// A range of its versions: `^1.2`, `>=1, <3`.
    #[arg(long, value_name = "RANGE")]
    pub(crate) version: Option<String>,
    /// A tag that it must have. May be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Only instances of this service.
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// An input that must fit, as JSON, or - for standard input.
    #[arg(long, value_name = "JSON")]
    pub(crate) input: Option<String>,
    /// What decides between those that are equally well: load, cost, latency, version.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) prefer: Vec<String>,
    /// Most instances.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    /// Most candidates that are shown with their reasons.
    #[arg(long, value_name = "N")]
    pub(crate) explain: Option<u32>,
}

/// `alicia bus`
#[derive(Debug, Subcommand)]
pub(crate) enum Bus {
    /// Publish a message.
    Pub(BusPub),
    /// Show messages as they come.
    #[command(after_help = "Examples:
  alicia bus sub 'alicia/#'
  alicia bus sub alicia/system/health/monitor/alerts --count 1 --json")]
    Sub(BusSub),
    /// Print the AsyncAPI document of every topic and message.
    Schema,
}

/// `alicia bus pub`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia bus pub alicia/rooms/kitchen/light '{\"on\": true}'
  alicia bus pub --retain alicia/house/mode away")]
pub(crate) struct BusPub {
    /// The topic.
    pub(crate) topic: String,
    /// The payload, JSON or text; `-` reads it from standard input.
    pub(crate) payload: String,
    /// Keep it for late comers.
    #[arg(short, long)]
    pub(crate) retain: bool,
    /// Quality of service: 0, 1 or 2.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Send the payload as it is, without an envelope.
    #[arg(long)]
    pub(crate) bare: bool,
}

/// `alicia bus sub`
#[derive(Debug, Args)]
pub(crate) struct BusSub {
    /// Filters; default: everything under the prefix.
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// End after this many messages.
    #[arg(short, long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End after this time without a message, for example 5s.
    #[arg(short, long, value_name = "PERIOD")]
    pub(crate) wait: Option<alicia_contract::Period>,
    /// Only what is retained now; then end.
    #[arg(long)]
    pub(crate) retained: bool,
    /// Not what is retained.
    #[arg(long, conflicts_with = "retained")]
    pub(crate) no_retained: bool,
}

/// `alicia check`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia check                        what is wrong with ./alicia.yaml, all at once
  alicia check --here                 and what this machine lacks for it
  alicia --file other.yaml check --json

Exit codes: 0 it is good, 2 it has faults.")]
pub(crate) struct Check {
    /// Look at this machine too: programs, directories, ports.
    #[arg(long)]
    pub(crate) here: bool,
}

/// `alicia key`
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key; it is shown once.
    Create(KeyCreate),
    /// List the keys, without their secrets.
    List,
    /// Revoke a key.
    Revoke {
        /// The name of the key.
        name: String,
    },
    /// Make a new root key; the one before it is good until everybody has renewed.
    RotateRoot,
}

/// `alicia key create`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia key create prometheus --scope read
  alicia key create night-shift --scope health:ack,orchestrator:restart --expires-days 30")]
pub(crate) struct KeyCreate {
    /// Its name; also the user name on the bus.
    pub(crate) name: String,
    /// What it may do: `read`, `operate`, `admin`, or single verbs of modules as in `orchestrator:restart`,
    /// `health:ack`, `registry:*`; may be given several times. Default: read.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    pub(crate) scope: Vec<alicia_contract::identity::Grant>,
    /// Days until it ends.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) expires_days: Option<u32>,
}

/// `alicia new`
#[derive(Debug, Subcommand)]
pub(crate) enum New {
    /// A service on the client library, complete: code, test, Dockerfile, entry in alicia.yaml.
    Service(NewService),
}

/// `alicia new service`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alicia new service hello --lang python && alicia up -d && alicia call hello greet '{\"name\": \"Ada\"}'")]
pub(crate) struct NewService {
    /// Its name: a-z, 0-9 and -.
    pub(crate) name: String,
    /// The language.
    #[arg(long)]
    pub(crate) lang: Language,
    /// For Rust: the directory of Alicia's source, in which crates/alicia-sdk lies.
    #[arg(long, value_name = "DIR")]
    pub(crate) sdk: Option<PathBuf>,
}

/// A language of the client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Python 3.9 or newer.
    Python,
    /// Rust.
    Rust,
}

/// `alicia run`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alicia run health                                   beside a host that has it switched off
  alicia run health --bus mqtt://127.0.0.1:1883       on another broker")]
pub(crate) struct RunModules {
    /// The modules.
    #[arg(required = true, value_name = "MODULE")]
    pub(crate) modules: Vec<String>,
    /// The bus, for example mqtt://127.0.0.1:1883. Default: that of the file, or of the host that runs.
    #[arg(long, value_name = "URL")]
    pub(crate) bus: Option<String>,
    /// Where its routes listen.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub(crate) listen: String,
}

/// `alicia completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// `alicia keeper`
#[derive(Debug, Args)]
pub(crate) struct Keeper {
    /// What the keeper understands; see `alicia_keeper::Options::parse`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// `alicia example`
#[derive(Debug, Args)]
pub(crate) struct Example {
    /// Which one.
    pub(crate) name: String,
}
