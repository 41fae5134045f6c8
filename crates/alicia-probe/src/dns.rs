//! One question to one name server (RFC 1035), over UDP, and over TCP when the answer is too large for that.

mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use alicia_contract::fleet::{DnsCheck, DnsType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::attempt::{Deadline, Seen};
use crate::target::{TargetError, limit};
use wire::{Answer, Question};

const PORT: u16 = 53;

/// Where the name servers of this machine are written (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A question that was lost is sent again after this long.
const RESEND: Duration = Duration::from_secs(1);

/// The largest answer over UDP that is read, in bytes: what the question announces (DNS flag day 2020).
const UDP_BYTES_MAX: usize = 1_232;

/// The most records that are shown.
const SHOWN_MAX: usize = 4;

/// A name and what is expected of it.
#[derive(Debug, Clone)]
pub struct DnsTarget {
    question: Question,
    server: Option<SocketAddr>,
    expect: Option<String>,
    pub(crate) latency_max: Option<Duration>,
}

// === impl DnsTarget ===

impl DnsTarget {
    pub(crate) fn new(check: &DnsCheck) -> Result<Self, TargetError> {
        let server = check.server.as_deref().map(|text| {
            let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
            let address = address.or_else(|_| text.parse::<SocketAddr>());
            address.map_err(|_| TargetError::NameServer(text.to_owned()))
        });
        let question = Question::new(&check.name, check.kind);
        Ok(Self {
            question: question.ok_or_else(|| TargetError::Name(check.name.clone()))?,
            server: server.transpose()?,
            expect: check.expect.clone(),
            latency_max: limit(check.latency_max),
        })
    }

    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let server = match self.server {
            Some(server) => server,
            None => of_this_machine(deadline).await?,
        };
        let missing = format!("no answer of the name server {server}");
        let answer = deadline
            .within(&missing, self.ask(server, deadline))
            .await??;
        self.judge(answer)
    }

    async fn ask(&self, server: SocketAddr, deadline: &Deadline) -> Result<Answer, String> {
        let id = fastrand::u16(..);
        let answer = over_udp(server, (id, &self.question), deadline).await?;
        match answer.is_cut {
            true => over_tcp(server, (id, &self.question), deadline).await,
            false => Ok(answer),
        }
    }

    fn judge(&self, answer: Answer) -> Seen {
        let name = &self.question.name;
        match answer.code {
            0 => {}
            2 => {
                return Err(format!(
                    "the name server failed to look {name} up (SERVFAIL)"
                ));
            }
            3 => return Err(format!("there is no name {name} (NXDOMAIN)")),
            5 => {
                return Err(format!(
                    "the name server refuses to look {name} up (REFUSED)"
                ));
            }
            code => return Err(format!("the name server answers with code {code}")),
        }
        let kind = wire::shown(self.question.kind);
        let shown: Vec<&str> = answer
            .records
            .iter()
            .take(SHOWN_MAX)
            .map(String::as_str)
            .collect();
        let shown = shown.join(", ");
        match &self.expect {
            _ if answer.records.is_empty() => Err(format!("{name} has no record {kind}")),
            Some(expected) if !answer.records.iter().any(|record| fits(record, expected)) => {
                Err(format!("{name} {kind} is {shown}, expected {expected}"))
            }
            _ => Ok(format!("{name} {kind} is {shown}")),
        }
    }
}

/// Names are the same whatever their case, with or without the last dot; of a mail server the preference may be left out.
fn fits(record: &str, expected: &str) -> bool {
    let bare = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
    let host = record.rsplit_once(' ').map_or(record, |(_, host)| host);
    bare(record) == bare(expected) || bare(host) == bare(expected)
}

/// What to say when the name server cannot be asked in this way.
fn failure(
    server: SocketAddr,
    way: &str,
    deadline: &Deadline,
) -> impl Fn(io::Error) -> String + Copy {
    move |error| {
        let error = deadline.own(error);
        format!("failed to ask the name server {server}{way}: {error}")
    }
}

async fn over_udp(
    server: SocketAddr,
    (id, question): (u16, &Question),
    deadline: &Deadline,
) -> Result<Answer, String> {
    let failed = failure(server, "", deadline);
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    let message = question.message(id);
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        socket.send(&message).await.map_err(failed)?;
        let heard = async {
            loop {
                let length = socket.recv(&mut buffer).await.map_err(failed)?;
                // Anything else is of a try before, or of somebody who guesses.
                if let Some(answer) = question.read(id, &buffer[..length]) {
                    return Ok(answer);
                }
            }
        };
        if let Ok(answer) = timeout(RESEND, heard).await {
            return answer;
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    (id, question): (u16, &Question),
    deadline: &Deadline,
) -> Result<Answer, String> {
    let failed = failure(server, " over TCP", deadline);
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let message = question.message(id);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&message);
    stream.write_all(&framed).await.map_err(failed)?;
    let length = stream.read_u16().await.map_err(failed)?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    question
        .read(id, &answer)
        .ok_or_else(|| format!("the answer of the name server {server} is not DNS"))
}

/// The first name server of this machine, read at each try: it changes with the network.
async fn of_this_machine(deadline: &Deadline) -> Result<SocketAddr, String> {
    let text = tokio::fs::read_to_string(RESOLV_CONF)
        .await
        .map_err(|error| deadline.own(error))
        .map_err(|error| format!("failed to read {RESOLV_CONF}: {error}"))?;
    let first = text.lines().find_map(|line| {
        let address = line.trim().strip_prefix("nameserver")?.trim();
        address.parse::<IpAddr>().ok()
    });
    let address = first.ok_or_else(|| format!("there is no name server in {RESOLV_CONF}"))?;
    Ok(SocketAddr::new(address, PORT))
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, wire::shown(self.kind))
    }
}

/// The number of a type of record (RFC 1035, section 3.2.2; RFC 3596).
const fn number(kind: DnsType) -> u16 {
    match kind {
        DnsType::A => 1,
        DnsType::Ns => 2,
        DnsType::Cname => 5,
        DnsType::Mx => 15,
        DnsType::Txt => 16,
        DnsType::Aaaa => 28,
    }
}
