//! The health protocol of gRPC, against the server of the gRPC project itself (C core, by its Python package).

#[path = "support/target.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use support::{check, once};

/// Debian's Python, for which Debian packages gRPC (`python3-grpcio`); the first on the `PATH` may be another.
const PYTHON: &str = "/usr/bin/python3";

/// Answers each service with the status that its name ends with; `gone` as a service that is not known.
const SERVER: &str = r#"
import concurrent.futures, grpc

def answer(request, context):
    service = request[2:].decode()
    if service == "gone":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    status = int(service[-1]) if service else 1
    return bytes([8, status]) if status else b""

handler = grpc.unary_unary_rpc_method_handler(answer)
handlers = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((handlers,))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
bare = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
print(bare.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
bare.start()
server.wait_for_termination()
"#;

/// A server with health, and one without.
struct Server {
    child: Child,
    ports: [u16; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
    }
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "whoever runs the tests sets the switch and reads what is skipped"
)]
fn start() -> Option<Server> {
    let found = Command::new(PYTHON).args(["-c", "import grpc"]).output();
    if !found.is_ok_and(|output| output.status.success()) {
        let required = std::env::var("ALICIA_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "python3-grpcio is not installed");
        println!("skipped: python3-grpcio is not installed");
        return None;
    }
    let mut child = Command::new(PYTHON)
        .args(["-c", SERVER])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let output = child.stdout.take().expect("piped");
    let mut lines = BufReader::new(output).lines();
    let ports = [(); 2].map(|()| {
        let line = lines.next().expect("a line").expect("readable");
        line.parse().expect("a port")
    });
    Some(Server { child, ports })
}

#[tokio::test]
async fn the_server_of_the_grpc_project_is_understood() {
    let Some(server) = start() else { return };
    let [port, bare] = server.ports;
    let ask =
        async |service: &str| once(json!({ "grpc": { "port": port, "service": service } })).await;
    check(&ask("").await, true, "the server is serving");
    check(&ask("pkg.Good1").await, true, "pkg.Good1 is serving");
    check(&ask("pkg.Bad2").await, false, "pkg.Bad2 is not serving");
    check(&ask("pkg.Odd3").await, false, "pkg.Odd3 is not known");
    check(
        &ask("pkg.Open0").await,
        false,
        "does not know whether it is serving",
    );
    check(&ask("gone").await, false, "gone is not known to the server");
    let without = once(json!({ "grpc": { "port": bare } })).await;
    check(&without, false, "does not offer its health");
}

#[tokio::test]
async fn what_speaks_no_http2_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().expect("a client");
        stream.read_exact(&mut [0; 24]).expect("the preface");
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .ok();
        // A connection that is closed with something unread is reset.
        while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    });
    let seen = once(json!({ "grpc": { "port": port } })).await;
    check(&seen, false, "the answer is not HTTP/2");
    server.join().expect("it ends");
    let refused = once(json!({ "grpc": { "port": port } })).await;
    check(&refused, false, "connection refused");
}
