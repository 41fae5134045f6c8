//! A TCP connection to a name or an address, with TLS where it is asked for.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use crate::attempt::{Deadline, Seen};
use crate::tls::Tls;

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Something to connect to.
#[derive(Debug, Clone)]
pub struct TcpTarget {
    /// Where.
    pub(crate) place: Place,
    /// A connection that takes longer is bad.
    pub(crate) latency_max: Option<Duration>,
}

/// A host, a port, and how to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// A name or an address; one of IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Tls>,
}

/// A connection, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is there.
pub(crate) struct Connected {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) peer: String,
    /// What is worth saying about the certificate; empty without one.
    pub(crate) note: String,
}

// === impl TcpTarget ===

impl TcpTarget {
    /// Connects, and closes.
    pub(crate) async fn attempt(&self, deadline: &Deadline) -> Seen {
        let Connected { peer, note, .. } = self.place.connect(&[], deadline).await?;
        Ok(format!("connected to {peer}{note}"))
    }
}

// === impl Place ===

impl Place {
    /// Connects to the first address of the host that takes the connection, and shakes hands.
    pub(crate) async fn connect(
        &self,
        protocols: &[&[u8]],
        deadline: &Deadline,
    ) -> Result<Connected, String> {
        let (host, port) = (self.host.as_str(), self.port);
        let missing = format!("no connection to {}", shown(host, port));
        let stream = deadline
            .within(&missing, first_of(host, port, deadline))
            .await??;
        let peer = stream
            .peer_addr()
            .map_or_else(|_| shown(host, port), |peer| peer.to_string());
        let (stream, note): (Box<dyn Stream>, String) = match &self.tls {
            None => (Box::new(stream), String::new()),
            Some(tls) => {
                let (stream, note) = tls.shake_hands(stream, protocols, deadline).await?;
                (Box::new(stream), note)
            }
        };
        Ok(Connected { stream, peer, note })
    }

    /// `host:port`, without the port that the scheme means anyway.
    pub(crate) fn authority(&self) -> String {
        let usual = match self.tls {
            None => 80,
            Some(_) => 443,
        };
        let shown = shown(&self.host, self.port);
        match self.port == usual {
            true => shown
                .trim_end_matches(char::is_numeric)
                .trim_end_matches(':')
                .to_owned(),
            false => shown,
        }
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.tls {
            None => "http",
            Some(_) => "https",
        }
    }
}

async fn first_of(host: &str, port: u16, deadline: &Deadline) -> Result<TcpStream, String> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|error| deadline.own(error))
        .map_err(|error| format!("the host {host} was not found: {error}"))?;
    let mut detail = format!("the host {host} has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => detail = refused(address, &deadline.own(error)),
        }
    }
    Err(detail)
}

fn refused(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {address}"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("no way to {address}")
        }
        _ => format!("failed to connect to {address}: {error}"),
    }
}

/// `host:port`, with brackets where IPv6 needs them (RFC 3986 section 3.2.2).
pub(crate) fn shown(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
