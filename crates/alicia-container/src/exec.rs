//! A program in a container that runs: how `exec` probes look at a service in one.

use std::path::Path;

use alicia_contract::InstanceId;
use alicia_contract::fleet::{Command, ContainerSpec};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use crate::engine::{Ask, Engine, Error, escape};
use crate::frames::Frames;
use crate::settings::{LABEL_FLEET, LABEL_INSTANCE};

/// How much of its output is kept; the rest is read and thrown away, or the program would wait to be rid of it.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// The words after the program of Alicia that make it look into a container.
const EXEC: [&str; 2] = ["container", "exec"];

/// The container of a run, as it is seen from outside: for programs that look at a service in one.
#[derive(Debug, Clone, Copy)]
pub struct Inside<'a> {
    /// The program file of Alicia.
    pub program: &'a Path,
    /// The data directory: fleets are told apart by it.
    pub data: &'a Path,
    /// What the file says of the container.
    pub container: &'a ContainerSpec,
    /// The run.
    pub instance: &'a InstanceId,
}

// === impl Inside ===

impl Inside<'_> {
    /// The command that runs these words in the container.
    #[must_use]
    pub fn command(&self, words: Vec<String>) -> Command {
        let mut line = vec![self.program.display().to_string()];
        line.extend(EXEC.map(str::to_owned));
        if let Some(engine) = &self.container.engine {
            line.extend(["--engine".to_owned(), engine.clone()]);
        }
        line.extend([fleet_of(self.data), self.instance.to_string()]);
        line.push("--".to_owned());
        line.extend(words);
        Command::List(line)
    }
}

/// The name of a fleet at its engine: the path of its data directory.
#[must_use]
pub fn fleet_of(data: &Path) -> String {
    data.display().to_string()
}

/// Runs a program in the container of a run; gives its exit code and what it said.
///
/// # Errors
/// When there is no such container, or the engine refuses.
pub async fn exec(
    engine: &Engine,
    fleet: &str,
    instance: &InstanceId,
    command: &[String],
) -> Result<(u8, Vec<u8>), Error> {
    let labels = [
        format!("{LABEL_FLEET}={fleet}"),
        format!("{LABEL_INSTANCE}={instance}"),
    ];
    let filters = escape(&json!({ "label": labels }).to_string());
    let path = format!("/containers/json?filters={filters}");
    let found = engine.ask(Ask::get("list containers", path)).await?;
    let Some(id) = found[0]["Id"].as_str() else {
        return Err(Error::Refused {
            what: "run a program in the container".to_owned(),
            status: 404,
            message: "the container does not run".to_owned(),
        });
    };
    let body = json!({ "Cmd": command, "AttachStdout": true, "AttachStderr": true });
    let path = format!("/containers/{id}/exec");
    let made = engine
        .ask(Ask::post(
            "run a program in the container",
            path,
            Some(body),
        ))
        .await?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    let path = format!("/exec/{id}/start");
    let body = json!({ "Detach": false, "Tty": false });
    let (_, said) = engine
        .send(Ask::post(
            "run a program in the container",
            path,
            Some(body),
        ))
        .await?;
    let output = read(said).await?;
    let path = format!("/exec/{id}/json");
    let ended = engine
        .ask(Ask::get("say how the program ended", path))
        .await?;
    let code = ended["ExitCode"]
        .as_u64()
        .and_then(|code| u8::try_from(code).ok());
    Ok((code.unwrap_or(u8::MAX), output))
}

/// The beginning of what a program says, read to its end: only then has it ended.
async fn read(mut said: Incoming) -> Result<Vec<u8>, Error> {
    let mut frames = Frames::default();
    let mut output = Vec::new();
    while let Some(frame) = said.frame().await {
        let frame = frame.map_err(|error| Error::Talk(error.to_string()))?;
        frames.push(frame.data_ref().map_or(&[][..], |data| data));
        while let Some((_, bytes)) = frames.next() {
            let room = OUTPUT_BYTES_MAX - output.len();
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_fleet_run_and_engine_before_the_words() {
        let mut container: ContainerSpec =
            serde_json::from_value(json!({"image": "x"})).expect("a container");
        let instance = InstanceId::from_parts(1, 1);
        let check = |container: &ContainerSpec, expected: &str| {
            let inside = Inside {
                program: Path::new("/bin/alicia"),
                data: Path::new("/data"),
                container,
                instance: &instance,
            };
            let command = inside.command(vec!["--engine".to_owned(), "x y".to_owned()]);
            let expected = expected.replace("RUN", instance.as_str());
            let expected = expected.split('|').map(str::to_owned).collect();
            assert_eq!(command, Command::List(expected));
        };
        check(
            &container,
            "/bin/alicia|container|exec|/data|RUN|--|--engine|x y",
        );
        container.engine = Some("unix:///e".to_owned());
        let named = "/bin/alicia|container|exec|--engine|unix:///e|/data|RUN|--|--engine|x y";
        check(&container, named);
    }
}
