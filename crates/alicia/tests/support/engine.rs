//! A container engine of the test's own: dockerd from Debian, with one image made of busybox.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use alicia_testkit::house::{has, is_installed, signal};
use alicia_testkit::until;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// The image that containers of tests are made of.
pub(crate) const IMAGE: &str = "alicia-test:1";

/// The programs of the image.
const PROGRAMS: [&str; 9] = [
    "sh", "cat", "dd", "echo", "httpd", "id", "sleep", "true", "false",
];

/// An engine that runs; ends with its containers when it is dropped.
pub(crate) struct Daemon {
    directory: TempDir,
    process: Child,
}

impl Daemon {
    /// Starts one; none where this machine lacks it.
    pub(crate) async fn start() -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let is_there = is_installed("dockerd", "docker.io")
            && is_installed("docker", "docker.io")
            && is_installed("busybox", "busybox-static")
            && has(is_root, "only root can run a container engine");
        if !is_there {
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let log = File::create(at("log")).expect("a log");
        // Dies with the test; needs no bridge, no firewall and no file system of its own kind.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("pid"), "--host"])
            .arg(format!("unix://{}", at("docker.sock")))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .arg("--storage-driver=vfs")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd is started");
        let mut daemon = Self { directory, process };
        let runs = daemon.answers().await;
        let said = fs::read_to_string(daemon.directory.path().join("log")).unwrap_or_default();
        let last = said.lines().last().unwrap_or_default();
        if !has(runs, &format!("dockerd does not run here: {last}")) {
            return None;
        }
        daemon.make_image();
        Some(daemon)
    }

    async fn answers(&mut self) -> bool {
        let process = std::sync::Mutex::new(&mut self.process);
        let directory = self.directory.path();
        let ended = || {
            let mut process = process.lock().expect("nobody else has it");
            process.try_wait().is_ok_and(|ended| ended.is_some())
        };
        let answers = || {
            let mut docker = docker(directory, &["version"]);
            docker.output().is_ok_and(|output| output.status.success())
        };
        until("dockerd answers or ends", async || ended() || answers()).await;
        answers()
    }

    fn make_image(&self) {
        let root = self.directory.path().join("image");
        let programs = root.join("bin");
        fs::create_dir_all(&programs).expect("directories");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let busybox = std::env::split_paths(&path)
            .map(|directory| directory.join("busybox"))
            .find(|path| path.is_file())
            .expect("it is installed");
        fs::copy(busybox, programs.join("busybox")).expect("a copy");
        for name in PROGRAMS {
            symlink("busybox", programs.join(name)).expect("a link");
        }
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["-c", "."])
            .output()
            .expect("tar runs");
        let mut import = docker(self.directory.path(), &["import", "-", IMAGE])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("docker runs");
        let mut input = import.stdin.take().expect("it is piped");
        input.write_all(&packed.stdout).expect("docker reads it");
        drop(input);
        assert!(
            import.wait().expect("it ends").success(),
            "the image is made"
        );
    }

    /// For `container.engine`.
    pub(crate) fn address(&self) -> String {
        format!(
            "unix://{}",
            self.directory.path().join("docker.sock").display()
        )
    }

    /// What docker says.
    #[track_caller]
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = docker(self.directory.path(), arguments)
            .output()
            .expect("docker runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The ids of the containers that there are, also of those that ended.
    pub(crate) fn containers(&self) -> Vec<String> {
        let ids = self.docker(&["ps", "--all", "--quiet", "--no-trunc"]);
        ids.lines().map(str::to_owned).collect()
    }

    /// What the engine knows of a container.
    pub(crate) fn inspect(&self, id: &str) -> Value {
        serde_json::from_str(&self.docker(&["inspect", id])).expect("it is JSON")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            signal(self.process.id(), Signal::TERM);
        }
        // It removes its mounts before it ends.
        self.process.wait().ok();
    }
}

fn docker(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command
        .arg("--host")
        .arg(format!(
            "unix://{}",
            directory.join("docker.sock").display()
        ))
        .args(arguments);
    command
}
