//! Credentials: a new one at half of the life of the last, over the host's socket or over REST.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alicia_contract::identity::{
    Nonce, RenewRequest, RenewalAnswer, RenewalChallenge, RenewalProof, Renewed, renewal_text,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::Identity;

/// How long one renewal may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// After the first failure; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// A host that was replaced is back within seconds.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The shortest life that is believed, so that a wrong clock makes no storm.
const LIFE_S_MIN: f64 = 10.0;

/// An answer has some 2 KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Renews for ever.
pub(super) async fn run(identity: Identity) {
    let mut pause = PAUSE_MIN;
    loop {
        let renewed = timeout(DEADLINE, renew(&identity))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match renewed {
            Ok(renewed) => {
                pause = PAUSE_MIN;
                identity.directory.add_roots(&renewed.roots);
                let life_s = (renewed.expires - renewed.now).max(LIFE_S_MIN);
                identity.credential.send_replace(Some(renewed.credential));
                sleep(Duration::from_secs_f64(life_s / 2.0)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "no new credential, trying again");
                fall_back(&identity);
                sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// The token of the file until there is a credential; one that is there stays.
fn fall_back(identity: &Identity) {
    if identity.credential.borrow().is_some() {
        return;
    }
    let token = identity.token_file.as_ref().map(std::fs::read_to_string);
    if let Some(Ok(token)) = token {
        identity
            .credential
            .send_replace(Some(token.trim_end().to_owned()));
    }
}

async fn renew(identity: &Identity) -> io::Result<Renewed> {
    match &identity.file.api {
        Some(api) if identity.file.socket.is_empty() => over_rest(identity, api).await,
        _ => over_socket(identity).await,
    }
}

fn prove(identity: &Identity, nonce: &str) -> String {
    let file = &identity.file;
    let text = renewal_text(
        nonce,
        file.service.as_str(),
        file.instance.as_str(),
        file.epoch.0,
    );
    URL_SAFE_NO_PAD.encode(identity.signer.key().sign(&text))
}

async fn over_socket(identity: &Identity) -> io::Result<Renewed> {
    let file = &identity.file;
    let (_directory, path) = reachable(Path::new(&file.socket))?;
    let (read, mut write) = UnixStream::connect(path).await?.into_split();
    let mut read = BufReader::new(read.take(ANSWER_BYTES_MAX));
    let challenge: RenewalChallenge = line(&mut read).await?;
    let proof = RenewalProof {
        service: file.service.clone(),
        instance: file.instance.clone(),
        epoch: file.epoch,
        proof: prove(identity, &challenge.nonce),
    };
    let mut bytes = serde_json::to_vec(&proof).map_err(io::Error::other)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await?;
    match line(&mut read).await? {
        RenewalAnswer::Granted(renewed) => Ok(renewed),
        RenewalAnswer::Refused(why) => Err(io::Error::other(why)),
    }
}

/// A path that fits into a socket's address: 108 bytes with the closing zero (`unix(7)`). A longer one is reached
/// through an open descriptor of its directory.
fn reachable(path: &Path) -> io::Result<(Option<std::fs::File>, PathBuf)> {
    use std::os::fd::AsRawFd;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    if path.as_os_str().len() < 108 {
        return Ok((None, path.to_owned()));
    }
    let opened = std::fs::File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())).join(name);
    Ok((Some(opened), short))
}

async fn line<T: DeserializeOwned>(read: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<T> {
    let mut line = String::new();
    read.read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

async fn over_rest(identity: &Identity, api: &str) -> io::Result<Renewed> {
    let file = &identity.file;
    let nonce: Nonce = ask(api, "GET", "/api/identity/nonce", "").await?;
    let request = RenewRequest {
        name: file.service.clone(),
        instance: file.instance.clone(),
        epoch: file.epoch,
        proof: prove(identity, &nonce.nonce),
        nonce: nonce.nonce,
    };
    let body = serde_json::to_string(&request).map_err(io::Error::other)?;
    ask(api, "POST", "/api/identity/renew", &body).await
}

/// One request of HTTP/1.0 to the host, whose answers here are short and whole.
async fn ask<T: DeserializeOwned>(
    api: &str,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<T> {
    let host = api.trim_end_matches('/').strip_prefix("http://");
    let host = host.ok_or_else(|| io::Error::other(format!("{api} is no http:// address")))?;
    let mut stream = TcpStream::connect(host).await?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut answer)
        .await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        let text: String = body.chars().take(300).collect();
        return Err(io::Error::other(format!(
            "{path} answered {status}: {text}"
        )));
    }
    serde_json::from_str(body).map_err(io::Error::other)
}
