//! `examples/real`: PostgreSQL, Redis, nginx, mosquitto_sub and a service on plain paho-mqtt, as Debian ships them.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use alicia_contract::health::HealthState;
use alicia_contract::orchestrator::InstanceState;
use alicia_testkit::house::{House, free_port, has, is_installed, signal};
use alicia_testkit::until;
use rustix::process::Signal;

const ALICIA: &str = env!("CARGO_BIN_EXE_alicia");

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/real");

/// The ports that the file names, each of which the test replaces with a free one.
const PORTS: [&str; 3] = ["5440", "6390", "8088"];

fn is_all_installed() -> bool {
    let programs = [
        ("nginx", "nginx-light"),
        ("redis-server", "redis-server"),
        ("psql", "postgresql"),
        ("mosquitto_sub", "mosquitto-clients"),
    ];
    let paho = Command::new("/usr/bin/python3")
        .args(["-c", "import paho.mqtt.client"])
        .output();
    let has_paho = paho.is_ok_and(|output| output.status.success());
    has(
        has_paho,
        "paho is not installed (Debian: python3-paho-mqtt)",
    ) && programs
        .iter()
        .all(|(program, package)| is_installed(program, package))
}

/// The example in a directory that the users of the programs may enter, as its README asks.
fn example() -> (House, [u16; 3]) {
    let ports = PORTS.map(|_| free_port());
    let file = fs::read_to_string(Path::new(EXAMPLE).join("alicia.yaml")).expect("the file");
    let file = PORTS.iter().zip(ports).fold(file, |file, (port, free)| {
        assert!(file.contains(port), "the file names {port}");
        file.replace(port, &free.to_string())
    });
    let house = House::new(ALICIA, &file);
    fs::set_permissions(house.path(), Permissions::from_mode(0o755)).expect("it is ours");
    for entry in [
        "as.sh",
        "listener.sh",
        "nginx.conf",
        "nginx.sh",
        "postgres.sh",
        "pulse.py",
        "redis.sh",
    ] {
        fs::copy(Path::new(EXAMPLE).join(entry), house.path().join(entry)).expect(entry);
    }
    fs::create_dir(house.path().join("site")).expect("a directory");
    let page = Path::new(EXAMPLE).join("site/index.html");
    fs::copy(page, house.path().join("site/index.html")).expect("the page");
    (house, ports)
}

/// What a server says to a request.
fn ask(port: u16, request: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    connection.write_all(request.as_bytes()).expect("it takes");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers");
    answer
}

fn sql(house: &House, port: u16, statement: &str) -> String {
    let password = fs::read_to_string(house.path().join("state/postgres/password"));
    let output = Command::new("psql")
        .env("PGPASSWORD", password.expect("a password").trim())
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
        .args(["-tAqc", statement])
        .output()
        .expect("psql runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn real_programs_run_answer_come_back_and_leave_nothing() {
    if !is_all_installed() {
        return;
    }
    let (house, [postgres, redis, nginx]) = example();
    house.says(&["check", "--here"]).exits(0);
    house.says(&["up", "-d"]).exits(0);
    let rows = house.all_running().await;
    assert_eq!(rows.len(), 5);
    until("all are well", || async {
        let rows = house.rows().await;
        rows.iter()
            .all(|row| row.health == Some(HealthState::Healthy))
    })
    .await;

    assert_eq!(
        sql(
            &house,
            postgres,
            "create table kept (n int); insert into kept values (42)"
        ),
        ""
    );
    assert_eq!(
        ask(redis, "SET kept 42\r\nGET kept\r\nQUIT\r\n"),
        "+OK\r\n$2\r\n42\r\n+OK\r\n"
    );
    let page = ask(nginx, "GET / HTTP/1.0\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    until("mosquitto_sub wrote a heartbeat down", || async {
        let logs = house.says(&["logs", "listener"]);
        logs.text().contains("alicia/system/health/pulse")
    })
    .await;

    for service in ["redis", "postgres", "nginx"] {
        let instance = format!("{service}-1");
        let before = house.reaches(&instance, InstanceState::Running).await;
        signal(before.pid.expect("it runs"), Signal::KILL);
        until(&format!("{service} is back"), || async {
            let row = house.row(&instance).await;
            row.is_some_and(|row| row.restarts == 1 && row.state == InstanceState::Running)
        })
        .await;
    }
    assert_eq!(sql(&house, postgres, "select n from kept"), "42");
    assert_eq!(ask(redis, "GET kept\r\nQUIT\r\n"), "$2\r\n42\r\n+OK\r\n");
    let page = ask(nginx, "GET /health HTTP/1.0\r\n\r\n");
    assert!(page.ends_with("ok\n"), "{page}");

    house.says(&["down"]).exits(0);
    until("nothing is left", || async { house.processes().is_empty() }).await;
}
