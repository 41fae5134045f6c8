//! The ports of the page and of the bus: free, taken by our own host, or by whom else.

use std::net::SocketAddr;

use alicia_contract::platform::HostFile;
use alicia_file::machine::{Here, Machine as _};
use alicia_host::Loaded;

use super::Finding;

/// Where the broker listens unless the file says otherwise.
const BUS_DEFAULT: &str = "127.0.0.1:1883";

pub(super) fn look(loaded: &Loaded, running: Option<&HostFile>) -> Vec<Finding> {
    let (page, bus) = ("port of the page", "port of the bus");
    if let Some(host) = running {
        let address = host.bus.as_deref().unwrap_or("none");
        let ours = |check, url: &str| Finding::ok(check, format!("{url}, our own host"));
        return vec![ours(page, &host.api), ours(bus, address)];
    }
    let here = Here::new("");
    let http = loaded.settings.http.listen;
    let of_bus = match (&loaded.settings.bus.url, broker(loaded)) {
        (Some(url), _) => Finding::ok(bus, format!("none, the bus is at {url}")),
        (None, Some(address)) => port(bus, address, &here, "broker.listen"),
        (None, None) => Finding::ok(bus, "none, the broker is off"),
    };
    vec![port(page, http, &here, "http.listen"), of_bus]
}

/// Where the embedded broker is to listen; none when it is off.
fn broker(loaded: &Loaded) -> Option<SocketAddr> {
    let section = loaded.section("broker");
    let written = section["listen"].as_str().unwrap_or(BUS_DEFAULT);
    written
        .parse()
        .ok()
        .filter(|_| loaded.settings.is_enabled("broker"))
}

/// Of a fleet that does not run: nobody may have its ports.
fn port(check: &str, address: SocketAddr, here: &Here, setting: &str) -> Finding {
    if address.port() == 0 {
        return Finding::ok(check, "any free one");
    }
    let Some(listener) = here.listener(address.port()) else {
        return Finding::ok(check, format!("{address} is free"));
    };
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
        let check = || port("port", address, &Here::new(""), "http.listen");
        let taken = check();
        assert_eq!(taken.level, Level::Fail);
        assert!(
            taken.found.contains(&format!("pid {}", std::process::id())),
            "{}",
            taken.found
        );
        drop(listener);
        assert_eq!(check().level, Level::Ok);
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let any = port("port", any, &Here::new(""), "http.listen");
        assert_eq!(any.level, Level::Ok);
    }
}
