//! Starting an instance: everything is checked and taken before the child is made, so that a child that
//! exists can always be watched.

use alicia_failpoint::failpoint;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};

use super::chores::Chore;
use super::instance::{Asker, Instance, Starting};
use super::limits;
use super::notify::Notify;
use super::plan::Plan;
use super::token::Token;
use super::{Keeper, note};
use crate::containment::{Container, Scan};
use crate::logs::Stream;
use crate::output::Pipe;
use crate::protocol::{Event, Failure, FailureCode, InstanceInfo, InstanceState, Reply, StartSpec};
use crate::sys::{self, Child, ChildPlan, Stage};
use crate::{accounts, clock, process_table};

/// A keeper that holds more is not what anybody wants.
const INSTANCES_MAX: usize = 10_000;

/// Both ends of the pipes of a child.
struct Pipes {
    stdout: Ends,
    stderr: Ends,
    report: Ends,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Keeper {
    /// Makes the child. The asker is answered when it has executed the program, or could not.
    pub(super) fn start(&mut self, asker: Asker, spec: StartSpec) -> Result<(), Failure> {
        self.check_admission(&spec)?;
        let run = (self.last_run + 1).max(clock::unix_ms());
        let tag = format!("{}.{run}", self.key);
        let notify = self.open_notify(&spec, run)?;
        let notify_socket = notify.as_ref().map(|it| it.address.as_str());
        let plan = Plan::of(&spec, &tag, notify_socket)?;
        let log = self.logs.open(&spec.log).map_err(|error| {
            let path = spec.log.path();
            let message = format!("the log {} cannot be opened: {error}", path.display());
            Failure {
                code: FailureCode::LogNotAvailable,
                message,
                errno: error.raw_os_error(),
            }
        })?;
        let pipes = Pipes::make()
            .map_err(|error| Failure::system(format!("no pipe can be made: {error}"), &error))?;
        let mut container = self.contain(&spec, run);
        failpoint("keeper/spawn");
        let (child, held) = self.make_child(&spec, run, &plan, (&pipes, &mut container))?;
        failpoint("keeper/spawned");
        let start_ticks = process_table::process(child.pid).map_or(0, |it| it.start_ticks);
        if let Container::Scan(scan) = &mut container {
            *scan = Scan {
                tag,
                leader: child.pid,
                start_ticks,
                pipes: [&pipes.stdout, &pipes.stderr]
                    .iter()
                    .filter_map(|it| it.inode())
                    .collect(),
                ..Scan::default()
            };
        }
        let sandboxed = plan.sandbox.map(|it| it.states).unwrap_or_default();
        self.last_run = run;
        if let Some(replaced) = spec.replaces {
            self.let_go(replaced);
        }
        let instance = Instance {
            info: InstanceInfo {
                instance: spec.instance.clone(),
                run,
                labels: spec.labels,
                pid: child.pid,
                start_ticks,
                started_unix_ms: clock::unix_ms(),
                state: InstanceState::Running,
                exit: None,
                empty: false,
                containment: container.kind(),
                not_enforced: held.not_enforced(),
                limits: held.states.into_iter().chain(sandboxed).collect(),
                log: spec.log.path(),
                notified: Default::default(),
                cgroup: container.cgroup_path(),
            },
            stop_signal: spec.stop_signal,
            stop_grace_ms: spec.stop_grace_ms,
            pidfd: Some(child.pidfd),
            container: Some(container),
            pipes: [
                Some(Pipe::new(pipes.stdout.read, Stream::Stdout)),
                Some(Pipe::new(pipes.stderr.read, Stream::Stderr)),
            ],
            log: Some(log),
            starting: Some(Starting {
                report: pipes.report.read,
                asker,
                program: plan.program.to_string_lossy().into_owned(),
            }),
            stopping: None,
            notify,
            listeners: spec.listeners,
            watched: held.watched,
            killed: Default::default(),
            looks: 0,
            settle_at_ms: None,
            is_forgotten: false,
            is_stillborn: false,
            is_survivor: false,
        };
        self.pids.insert(child.pid, run);
        self.names.insert(spec.instance, run);
        for name in &instance.listeners {
            self.take_watch_back(name);
        }
        self.watch_instance(run, &instance);
        self.instances.insert(run, instance);
        self.begin_polling();
        self.begin_fork_looks(run);
        Ok(())
    }

    fn open_notify(&self, spec: &StartSpec, run: u64) -> Result<Option<Notify>, Failure> {
        if !spec.notify {
            return Ok(None);
        }
        let user = accounts::identity(spec.user.as_deref(), spec.group.as_deref())?;
        let about = (user.as_ref(), spec.watchdog_ms);
        let notify = Notify::open(&self.place, (&self.key, run), about).map_err(|error| {
            Failure::system(format!("no notify socket can be made: {error}"), &error)
        })?;
        let is_scoped = spec.sandbox.as_ref().is_some_and(|sandbox| sandbox.scoped);
        if notify.is_abstract() && is_scoped {
            let text = format!(
                "its user cannot come to its notify socket in {}: let others pass through the directories above it \
                 (chmod o+x), or set `sandbox.scoped: false`",
                self.place.directory().display()
            );
            return Err(Failure::new(FailureCode::NotPermitted, text));
        }
        Ok(Some(notify))
    }

    fn check_admission(&self, spec: &StartSpec) -> Result<(), Failure> {
        let refuse = |code, message: String| Err(Failure::new(code, message));
        if self.is_shutting_down {
            return refuse(
                FailureCode::ShuttingDown,
                "the keeper is shutting down".to_owned(),
            );
        }
        if self.instances.len() >= INSTANCES_MAX {
            let message = format!("there are {INSTANCES_MAX} instances, which is the limit");
            return refuse(FailureCode::LimitReached, message);
        }
        let name = &spec.instance;
        let Some((run, holder)) = self
            .names
            .get(name)
            .and_then(|run| Some((*run, self.instances.get(run)?)))
        else {
            return Ok(());
        };
        if holder.is_alive() {
            let message = format!("instance \"{name}\" runs already (run {run})");
            return refuse(FailureCode::InstanceExists, message);
        }
        if spec.replaces != Some(run) {
            let message = format!(
                "instance \"{name}\" has an exit record (run {run}): forget it, or name it in replaces"
            );
            return refuse(FailureCode::InstanceExists, message);
        }
        Ok(())
    }

    /// The first rung that works.
    fn contain(&self, spec: &StartSpec, run: u64) -> Container {
        if let Ok(cgroups) = &self.cgroups {
            match cgroups.create(&limits::group_name(&spec.instance, run)) {
                Ok(cgroup) => return Container::Cgroup(cgroup),
                Err(error) => note(&format!("{}: no cgroup: {error}", spec.instance)),
            }
        }
        Container::Scan(Scan::default())
    }

    fn make_child(
        &mut self,
        spec: &StartSpec,
        run: u64,
        plan: &Plan,
        (pipes, container): (&Pipes, &mut Container),
    ) -> Result<(Child, limits::Held), Failure> {
        let own_user = rustix::process::geteuid().as_raw();
        let user = plan.identity.as_ref().map_or(own_user, |it| it.user);
        let held = self.hold_limits(spec, (run, user), container);
        let made = self.spawn(spec, plan, &held, (pipes, container));
        let refusal = match made {
            Ok(child) => return Ok((child, held)),
            Err(refusal) => refusal,
        };
        if held.watched.has_cgroup1 {
            let name = limits::group_name(&spec.instance, run);
            self.chores.push(Chore::RemoveGroups(name));
        }
        let Container::Cgroup(cgroup) = &*container else {
            return Err(refusal.into_failure());
        };
        self.chores
            .push(Chore::RemoveCgroup(cgroup.path().to_owned()));
        if !refusal.is_about_cgroups() {
            return Err(refusal.into_failure());
        }
        note(&format!(
            "{}: cannot be born in a cgroup: {refusal:?}",
            spec.instance
        ));
        *container = Container::Scan(Scan::default());
        self.make_child(spec, run, plan, (pipes, container))
    }

    fn spawn(
        &self,
        spec: &StartSpec,
        plan: &Plan,
        held: &limits::Held,
        (pipes, container): (&Pipes, &Container),
    ) -> Result<Child, Refusal> {
        let listeners = self
            .listeners
            .sockets(&spec.listeners)
            .map_err(Refusal::Listener)?;
        let passed = plan.passed.iter().map(AsFd::as_fd);
        let inherited = listeners.into_iter().chain(passed).collect();
        let own = plan.resource_limits.iter().copied();
        // Ours first: what was asked for comes after it, and counts.
        let resource_limits: Vec<_> = held.stand_ins().chain(own).collect();
        let plan = ChildPlan {
            program: &plan.program,
            arguments: &plan.arguments,
            environment: &plan.environment,
            directory: &plan.directory,
            identity: plan.identity.as_ref(),
            umask: plan.umask,
            resource_limits: &resource_limits,
            join: held.join.iter().map(AsFd::as_fd).collect(),
            no_new_privileges: spec.no_new_privileges,
            sandbox: plan.sandbox.as_ref(),
            die_with_keeper: spec.die_with_keeper,
            oom_score_adj: self.standing.oom_score_adj.as_deref(),
            stdin: self.null.as_fd(),
            stdout: pipes.stdout.write.as_fd(),
            stderr: pipes.stderr.write.as_fd(),
            error: pipes.report.write.as_fd(),
            inherited,
            pid_variables: &plan.pid_variables,
            cgroup: match container {
                Container::Cgroup(cgroup) => Some(cgroup.directory()),
                Container::Scan(_) => None,
            },
        };
        sys::spawn(&plan).map_err(Refusal::System)
    }

    /// Descriptors of an instance that can say something.
    pub(super) fn watch_instance(&self, run: u64, instance: &Instance) {
        let mut watched = Vec::new();
        if let Some(starting) = &instance.starting {
            let flags = epoll::EventFlags::IN;
            watched.push((
                &self.poll,
                starting.report.as_fd(),
                Token::Executed(run),
                flags,
            ));
        }
        if let Some(event) = &instance.watched.out_of_memory {
            let flags = epoll::EventFlags::IN;
            watched.push((&self.poll, event.as_fd(), Token::OutOfMemory(run), flags));
        }
        if let Some(forks) = &instance.watched.forks {
            let flags = epoll::EventFlags::PRI | epoll::EventFlags::ET;
            watched.push((&self.poll, forks.events(), Token::RefusedForks(run), flags));
        }
        if let Some(notify) = &instance.notify {
            let flags = epoll::EventFlags::IN;
            watched.push((&self.poll, notify.socket.as_fd(), Token::Notify(run), flags));
        }
        if let Some(Container::Cgroup(cgroup)) = &instance.container {
            // Each change once: it is also pending from the birth of the child on.
            let flags = epoll::EventFlags::PRI | epoll::EventFlags::ET;
            watched.push((&self.poll, cgroup.events(), Token::Cgroup(run), flags));
        }
        for (index, pipe) in instance.pipes.iter().enumerate() {
            if let Some(pipe) = pipe {
                let flags = epoll::EventFlags::IN;
                watched.push((
                    &self.pipes_poll,
                    pipe.fd.as_fd(),
                    Token::Output(run, index),
                    flags,
                ));
            }
        }
        for (poll, fd, token, flags) in watched {
            // Out of kernel memory: what is not heard of is looked at when the child ends.
            if let Err(error) = epoll::add(poll, fd, token.data(), flags) {
                note(&format!(
                    "{}: cannot watch {token:?}: {error}",
                    instance.info.instance
                ));
            }
        }
    }

    /// The report pipe of a child says something, or is closed by a successful `execve`.
    pub(super) fn executed(&mut self, run: u64) {
        let Some(instance) = self.instances.get_mut(&run) else {
            return;
        };
        let Some(starting) = instance.starting.take() else {
            return;
        };
        let mut report = [0; sys::REPORT_BYTES];
        let asker = starting.asker;
        let length = rustix::io::read(&starting.report, &mut report).unwrap_or_default();
        if length == sys::REPORT_BYTES {
            let failure = explain(sys::parse_report(report), &starting.program, instance);
            instance.is_stillborn = true;
            self.let_go(run);
            self.clients.answer(asker, Err(failure));
            return;
        }
        let info = instance.info.clone();
        self.chores.push(Chore::WriteStart(run));
        self.clients.answer(asker, Ok(Reply::Started(info.clone())));
        self.broadcast(&Event::Started(info));
    }
}

impl Pipes {
    fn make() -> io::Result<Self> {
        Ok(Self {
            stdout: Ends::make()?,
            stderr: Ends::make()?,
            report: Ends::make()?,
        })
    }
}

impl Ends {
    /// Only the keeper's end does not block: the child writes as to any pipe.
    fn make() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&read, OFlags::NONBLOCK)?;
        Ok(Self { read, write })
    }

    fn inode(&self) -> Option<u64> {
        rustix::fs::fstat(&self.read).ok().map(|stat| stat.st_ino)
    }
}

/// Why no child was made.
#[derive(Debug)]
enum Refusal {
    Listener(Failure),
    System(io::Error),
}

impl Refusal {
    /// Errors of `clone3` that come from the cgroup rather than from a limit.
    fn is_about_cgroups(&self) -> bool {
        use libc::{EACCES, EBUSY, EINVAL, ENOSYS, EOPNOTSUPP, EPERM};
        let Self::System(error) = self else {
            return false;
        };
        let number = error.raw_os_error();
        matches!(
            number,
            Some(ENOSYS | EPERM | EACCES | EOPNOTSUPP | EBUSY | EINVAL)
        )
    }

    fn into_failure(self) -> Failure {
        match self {
            Self::Listener(failure) => failure,
            Self::System(error) => {
                Failure::system(format!("no process can be made: {error}"), &error)
            }
        }
    }
}

/// What went wrong in the child, for people.
fn explain((stage, errno): (Stage, i32), program: &str, instance: &Instance) -> Failure {
    let error = io::Error::from_raw_os_error(errno);
    let name = &instance.info.instance;
    let (code, message) = match (stage, errno) {
        (Stage::Execute, libc::ENOENT) => (
            FailureCode::ProgramNotExecutable,
            format!("{program}: its interpreter (the #! line, or the dynamic loader) is not there"),
        ),
        (Stage::Execute, libc::ENOEXEC) => (
            FailureCode::ProgramNotExecutable,
            format!(
                "{program}: it is no program: neither a binary of this machine nor a #! script"
            ),
        ),
        (Stage::Execute, libc::EACCES | libc::EPERM) => (
            FailureCode::ProgramNotExecutable,
            format!("{program}: it may not be executed by the user of \"{name}\": {error}"),
        ),
        (Stage::Directory, libc::EACCES) => (
            FailureCode::DirectoryNotAccessible,
            format!("the directory of \"{name}\" may not be entered by its user"),
        ),
        (Stage::Directory, libc::ENOENT | libc::ENOTDIR) => (
            FailureCode::DirectoryNotFound,
            format!("the directory of \"{name}\" does not exist"),
        ),
        (Stage::Limit, libc::EINVAL) => (
            FailureCode::InvalidRequest,
            format!("resource_limits of \"{name}\": a soft limit is above its hard limit"),
        ),
        (stage, _) => {
            let doing = match stage {
                Stage::Prepare => "prepare the process",
                Stage::Capabilities => {
                    "keep the capabilities of its sandbox: the keeper has not got them"
                }
                Stage::Landlock => "enter its sandbox (Landlock)",
                Stage::Seccomp => "enter its sandbox (the filter of system calls)",
                Stage::Join => "enter its groups of cgroup version 1",
                Stage::Limit => "set resource_limits (raising a hard limit needs a privilege)",
                Stage::Identity => "change user or group",
                Stage::Directory => "enter the directory",
                Stage::Execute => "execute the program",
            };
            let message = format!("\"{name}\" could not {doing}: {error}");
            return Failure::system(message, &error);
        }
    };
    Failure {
        code,
        message,
        errno: Some(errno),
    }
}
