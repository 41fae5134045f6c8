//! The ports of the page and of the bus: free, taken by our own host, or by whom else.

use std::net::SocketAddr;

use alicia_contract::platform::HostFile;
use alicia_file::machine::{Here, Machine as _};
use alicia_host::Loaded;

use super::Finding;

/// Where the broker listens unless the file says otherwise.
const BUS_DEFAULT: &str = "127.0.0.1:1883";

pub(super) fn look(loaded: &Loaded, running: Option<&HostFile>) -> Vec<Finding> {
    let here = Here::new("");
    let http = loaded.settings.http.listen;
    let mut findings = vec![port(
        "port of the page",
        http,
        running,
        &here,
        "http.listen",
    )];
    match (&loaded.settings.bus.url, bus(loaded)) {
        (Some(url), _) => findings.push(Finding::ok(
            "port of the bus",
            format!("none, the bus is at {url}"),
        )),
        (None, Some(bus)) => findings.push(port(
            "port of the bus",
            bus,
            running,
            &here,
            "broker.listen",
        )),
        (None, None) => findings.push(Finding::ok("port of the bus", "none, the broker is off")),
    }
    findings
}

fn bus(loaded: &Loaded) -> Option<SocketAddr> {
    let section = loaded.section("broker");
    let written = section["listen"].as_str().unwrap_or(BUS_DEFAULT);
    written
        .parse()
        .ok()
        .filter(|_| loaded.settings.is_enabled("broker"))
}

fn port(
    check: &str,
    address: SocketAddr,
    running: Option<&HostFile>,
    here: &Here,
    setting: &str,
) -> Finding {
    let port = address.port();
    if port == 0 {
        return Finding::ok(check, "any free one");
    }
    let Some(listener) = here.listener(port) else {
        return Finding::ok(check, format!("{address} is free"));
    };
    let is_ours = running.is_some_and(|host| {
        let is_named = |url: &str| url.ends_with(&format!(":{port}"));
        listener.pid == Some(host.pid)
            || is_named(&host.api)
            || host.bus.as_deref().is_some_and(is_named)
    });
    if is_ours {
        return Finding::ok(check, format!("{address}, our own host"));
    }
    let by = match (&listener.program, listener.pid) {
        (Some(program), Some(pid)) => format!("{program} (pid {pid})"),
        (None, Some(pid)) => format!("the process {pid}"),
        _ => "a program of another user".to_owned(),
    };
    let mend = format!(
        "end it, or choose another with `{setting}:` in the file or --set {setting}=127.0.0.1:PORT"
    );
    Finding::fail(check, format!("{address} is taken by {by}"), mend)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::command::doctor::Level;

    #[test]
    fn a_taken_port_names_who_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let check = |running: Option<&HostFile>| {
            port("port", address, running, &Here::new(""), "http.listen")
        };
        let taken = check(None);
        assert_eq!(taken.level, Level::Fail);
        assert!(
            taken.found.contains(&format!("pid {}", std::process::id())),
            "{}",
            taken.found
        );
        let own = HostFile {
            pid: std::process::id(),
            api: String::new(),
            bus: None,
            version: String::new(),
        };
        assert_eq!(check(Some(&own)).level, Level::Ok);
        drop(listener);
        assert_eq!(check(None).level, Level::Ok);
        let any = port(
            "port",
            "127.0.0.1:0".parse().expect("an address"),
            None,
            &Here::new(""),
            "http.listen",
        );
        assert_eq!(any.level, Level::Ok);
    }
}
