//! Where instances renew their credentials: a Unix socket beside the token files.
//!
//! ```text
//!  instance ── connects ──▶ who is it? (SO_PEERCRED: a process of the instance's tree)
//!           ◀── nonce ──
//!           ── proof: the nonce signed with the run's key ──▶ may the run act? is it the key's signature?
//!           ◀── credential, its end, the root keys ──
//! ```
//!
//! The key alone is not enough, and neither is the process: a key that leaked renews nothing from outside of the
//! tree, and a process of the tree that has no key renews nothing at all.

mod crowd;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alicia_contract::identity::{RenewalAnswer, RenewalChallenge, RenewalProof};
use alicia_identity::{Authority, Process};
use alicia_module::{Clock, Paths};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crowd::Crowd;

/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A proof has some 300 bytes.
const PROOF_BYTES_MAX: u64 = 4_096;

/// How long a process that has just started may be unknown to us: it may be quicker than the keeper's word of it.
const NEWS_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks for that word.
const NEWS_LOOK: Duration = Duration::from_millis(10);

/// After a failure to accept, which is for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Services may run as other users; what they may do is decided by what they can prove.
const SOCKET_MODE: u32 = 0o666;

/// Others may pass through, but not list.
const DIRECTORY_MODE: u32 = 0o711;

/// `sun_path` has 108 bytes, the closing zero included (`unix(7)`).
const PATH_BYTES_MAX: usize = 107;

/// A parent chain that is longer is no tree of ours.
const ANCESTORS_MAX: usize = 128;

/// The host's end of the socket.
pub(crate) struct Renewal {
    pub(crate) identity: Authority,
    pub(crate) clock: Clock,
    crowd: Mutex<Crowd>,
}

/// Binds the socket, in place of one that an earlier host left.
pub(crate) fn bind(paths: &Paths) -> io::Result<UnixListener> {
    let path = paths.renewal_socket();
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let opened = fs::File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let is_long = path.as_os_str().len() > PATH_BYTES_MAX;
    let name = path.file_name().unwrap_or_default();
    let listener = if is_long {
        UnixListener::bind(short.join(name))?
    } else {
        UnixListener::bind(&path)?
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

// === impl Renewal ===

impl Renewal {
    pub(crate) fn new(identity: Authority, clock: Clock) -> Self {
        Self {
            identity,
            clock,
            crowd: Mutex::default(),
        }
    }

    /// Serves until it is told to end.
    pub(crate) async fn serve(self, listener: UnixListener, ending: CancellationToken) {
        let (renewal, tasks) = (Arc::new(self), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = ending.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let asker = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream)));
            match asker {
                Ok((peer, stream)) => {
                    drop(tasks.spawn(renewal.clone().serve_one(peer, stream)));
                }
                Err(error) => {
                    tracing::warn!(%error, "a renewal could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_one(self: Arc<Self>, peer: UCred, stream: UnixStream) {
        let (number, sent_away) = self.crowd().enter(peer.uid());
        tokio::select! {
            () = sent_away.cancelled() => tracing::debug!("a renewal made way for others"),
            ended = timeout(DEADLINE, self.talk(peer.pid(), stream)) => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a renewal broke off"),
                Err(_) => tracing::debug!("a renewal took too long"),
            },
        }
        self.crowd().leave(number);
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        // It is whole after each of its operations.
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn talk(&self, peer: Option<i32>, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let nonce = self
            .identity
            .nonce(self.clock.unix())
            .map_err(io::Error::other)?;
        let challenge = RenewalChallenge {
            nonce: nonce.clone(),
        };
        say(&mut write, &challenge).await?;
        let mut line = String::new();
        BufReader::new(read.take(PROOF_BYTES_MAX))
            .read_line(&mut line)
            .await?;
        let answer = match serde_json::from_str::<RenewalProof>(&line) {
            Ok(proof) => self.answer(peer, &proof, &nonce).await,
            Err(_) => Err("the proof cannot be read".to_owned()),
        };
        let answer = match answer {
            Ok(renewed) => RenewalAnswer::Granted(renewed),
            Err(why) => {
                tracing::warn!(pid = peer, %why, "a credential was refused");
                RenewalAnswer::Refused(why)
            }
        };
        say(&mut write, &answer).await
    }

    async fn answer(
        &self,
        peer: Option<i32>,
        proof: &RenewalProof,
        nonce: &str,
    ) -> Result<alicia_contract::identity::Renewed, String> {
        let instance = &proof.instance;
        let pid = peer.and_then(|pid| u32::try_from(pid).ok());
        let process = self.process_of(instance).await;
        let is_of_tree = pid
            .zip(process)
            .is_some_and(|(pid, process)| belongs(pid, &process));
        if !is_of_tree {
            return Err(format!("the process is not one of the instance {instance}"));
        }
        let renewed = self.identity.renew_run(proof, nonce, self.clock.unix());
        renewed.map_err(|error| format!("failed to {error}"))
    }

    /// The process that leads the instance; waits for the news of one that has just started.
    async fn process_of(&self, instance: &alicia_contract::InstanceId) -> Option<Process> {
        let look = async {
            loop {
                if let Some(process) = self.identity.process_of(instance) {
                    return process;
                }
                sleep(NEWS_LOOK).await;
            }
        };
        timeout(NEWS_PATIENCE, look).await.ok()
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Whether a process is the leader of an instance, has it among its ancestors, or is in its cgroup.
fn belongs(pid: u32, process: &Process) -> bool {
    let chain = std::iter::successors(Some(pid), |pid| parent(*pid).filter(|pid| *pid > 1));
    if chain.take(ANCESTORS_MAX).any(|pid| pid == process.pid) {
        return true;
    }
    process.cgroup.as_deref().is_some_and(|cgroup| {
        let found = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        is_within(&found, cgroup)
    })
}

/// The parent of a process, from its `stat`: the second number behind the name, which may hold anything but a `)` at
/// its end (`proc_pid_stat(5)`).
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the unified hierarchy of a `/proc/<pid>/cgroup` names this directory or one below it.
fn is_within(found: &str, cgroup: &Path) -> bool {
    let path = found.lines().find_map(|line| line.strip_prefix("0::"));
    let path = path.filter(|path| path.len() > 1).map(|path| &path[1..]);
    let mut places = path
        .into_iter()
        .flat_map(|path| Path::new(path).ancestors())
        .filter(|place| !place.as_os_str().is_empty());
    places.any(|place| cgroup.ends_with(place))
}

#[cfg(test)]
mod tests {
    use alicia_contract::fleet::{Fleet, ServiceSpec};
    use alicia_contract::identity::renewal_text;
    use alicia_contract::{Epoch, InstanceId, Prefix, ServiceName};
    use alicia_identity::Beginning;
    use alicia_signature::SigningKey;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[tokio::test]
    async fn connections_that_say_nothing_hold_nobody_up() {
        let data = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(data.path(), "/");
        let identity = Authority::open(&paths.identity(), Prefix::default()).expect("opens");
        let service = ServiceName::new("api").expect("a name");
        let settings = (
            service.clone(),
            ServiceSpec::new(vec!["true".into()]).into(),
        );
        identity.set_fleet(&Fleet {
            services: [settings].into(),
            ..Fleet::default()
        });
        let clock = Clock::system();
        let instance = InstanceId::from_parts(1, 1);
        let beginning = Beginning {
            service: &service,
            slot: 1,
            instance: &instance,
            epoch: Epoch(1),
            socket: &paths.renewal_socket(),
            logs_in: true,
        };
        let file = identity.begin_run(beginning, clock.unix()).expect("begins");
        let pid = std::process::id();
        identity.note_process(&instance, Process { pid, cgroup: None });
        let listener = bind(&paths).expect("binds");
        let ending = CancellationToken::new();
        let serving = Renewal::new(identity, clock).serve(listener, ending.clone());
        let asking = async {
            let mut silent = Vec::new();
            for _ in 0..2 * crowd::RENEWALS_MAX {
                let stream = UnixStream::connect(paths.renewal_socket()).await;
                silent.push(BufReader::new(stream.expect("connects")));
            }
            let stream = UnixStream::connect(paths.renewal_socket()).await;
            let (read, mut write) = stream.expect("connects").into_split();
            let mut lines = BufReader::new(read).lines();
            let challenge = lines.next_line().await.expect("reads").expect("a line");
            let challenge: RenewalChallenge = serde_json::from_str(&challenge).expect("a nonce");
            let key = SigningKey::from_text(&file.key).expect("a key");
            let text = renewal_text(&challenge.nonce, "api", instance.as_str(), 1);
            let proof = RenewalProof {
                service: service.clone(),
                instance: instance.clone(),
                epoch: Epoch(1),
                proof: URL_SAFE_NO_PAD.encode(key.sign(&text)),
            };
            say(&mut write, &proof).await.expect("writes");
            let answer = lines.next_line().await.expect("reads").expect("a line");
            let answer: RenewalAnswer = serde_json::from_str(&answer).expect("an answer");
            assert!(matches!(answer, RenewalAnswer::Granted(_)), "{answer:?}");
            // The oldest of them has made way; it may have got a nonce before.
            let mut rest = String::new();
            silent[0]
                .read_to_string(&mut rest)
                .await
                .expect("is closed");
            assert!(rest.lines().count() <= 1, "{rest}");
            ending.cancel();
        };
        tokio::join!(serving, asking);
    }

    #[test]
    fn a_process_belongs_to_its_own_tree_and_not_to_another() {
        let own = std::process::id();
        let here = |pid: u32| Process { pid, cgroup: None };
        assert!(belongs(own, &here(own)));
        let parent = parent(own).expect("has a parent");
        assert!(belongs(own, &here(parent)));
        assert!(!belongs(parent, &here(own)));
        assert!(!belongs(own, &here(u32::MAX)));
    }

    #[test]
    fn a_cgroup_counts_with_what_is_below_it() {
        let cgroup = Path::new("/sys/fs/cgroup/alicia/api-1");
        assert!(is_within("0::/alicia/api-1\n", cgroup));
        assert!(is_within("12:cpu:/x\n0::/alicia/api-1/sub\n", cgroup));
        for other in [
            "0::/alicia\n",
            "0::/\n",
            "0::/alicia/api-10\n",
            "",
            "0::/alicia/api-2\n",
        ] {
            assert!(!is_within(other, cgroup), "{other:?}");
        }
    }
}
