//! A TCP connection to a name or an address.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};

use crate::attempt::{Deadline, Seen};

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects, and closes.
pub(crate) async fn attempt(host: &str, port: u16, deadline: &Deadline) -> Seen {
    let stream = connect(host, port, deadline).await?;
    let peer = stream
        .peer_addr()
        .map_or_else(|_| shown(host, port), |peer| peer.to_string());
    Ok(format!("connected to {peer}"))
}

/// Connects to the first address of the host that takes the connection.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    deadline: &Deadline,
) -> Result<TcpStream, String> {
    let missing = format!("no connection to {}", shown(host, port));
    deadline.within(&missing, first_of(host, port)).await?
}

async fn first_of(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|error| format!("the host {host} was not found: {error}"))?;
    let mut detail = format!("the host {host} has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => detail = refused(address, &error),
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
