//! TLS against a real server with certificates of its own authority.

#[path = "support/target.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alicia_probe::attempt;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::{Value, json};
use support::{PATIENCE, check, target};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A server for `localhost` whose certificate ends in so many days, and the directory with `ca.pem` of its authority.
struct Server {
    directory: TempDir,
    port: u16,
}

impl Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no context to spawn in"
    )]
    async fn start(days: i64) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
        let mut leaf = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        leaf.not_before = in_days(-400).into();
        leaf.not_after = in_days(days).into();
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &authority).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut head = [0; 1024];
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                // A client that only wanted to shake hands is gone.
                if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    stream.write_all(answer).await.ok();
                    stream.shutdown().await.ok();
                }
            }
        });
        Self { directory, port }
    }

    async fn attempt(&self, kind: &str, tls: Value) -> alicia_probe::Outcome {
        let probe = json!({ (kind): { "host": "localhost", "port": self.port, "tls": tls } });
        let target = target(probe, self.directory.path(), &[]);
        attempt(&target, PATIENCE).await
    }
}

/// A time so many days from now, and half a day more, so that the test does not depend on the hour.
#[expect(clippy::disallowed_methods, reason = "certificates end at a wall time")]
fn in_days(days: i64) -> SystemTime {
    let span = Duration::from_secs(days.unsigned_abs() * 86_400);
    let half = Duration::from_secs(43_200);
    match days < 0 {
        true => SystemTime::now() - span + half,
        false => SystemTime::now() + span + half,
    }
}

#[tokio::test]
async fn a_certificate_of_a_known_authority_is_trusted_and_its_days_are_told() {
    let server = Server::start(30).await;
    let ca = json!({ "ca": "ca.pem" });
    let seen = server.attempt("http", ca.clone()).await;
    check(&seen, true, "HTTP 200, certificate good for 30 days");
    check(
        &server.attempt("tcp", ca).await,
        true,
        "certificate good for 30 days",
    );
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_bad() {
    let server = Server::start(10).await;
    let tls = |days: u32| json!({ "ca": "ca.pem", "days_left_min": days });
    check(&server.attempt("http", tls(10)).await, true, "10 days");
    let seen = server.attempt("http", tls(14)).await;
    check(
        &seen,
        false,
        "the certificate is good for 10 more days, expected 14 or more",
    );
}

#[tokio::test]
async fn what_is_not_trusted_is_refused_with_the_reason() {
    let server = Server::start(30).await;
    let unknown = Server::start(30).await;
    let ended = Server::start(-10).await;
    let refused = "the certificate is not trusted";
    // The authority of another server.
    std::fs::copy(
        unknown.directory.path().join("ca.pem"),
        server.directory.path().join("other.pem"),
    )
    .expect("copied");
    check(
        &server.attempt("http", json!({ "ca": "other.pem" })).await,
        false,
        refused,
    );
    check(
        &ended.attempt("http", json!({ "ca": "ca.pem" })).await,
        false,
        "expired",
    );
    let name = json!({ "ca": "ca.pem", "server_name": "example.org" });
    check(&server.attempt("http", name).await, false, refused);
    let absent = server.attempt("http", json!({ "ca": "none.pem" })).await;
    check(&absent, false, "failed to read the certificates");
    std::fs::write(server.directory.path().join("empty.pem"), "").expect("written");
    let empty = server.attempt("http", json!({ "ca": "empty.pem" })).await;
    check(&empty, false, "there is no certificate in");
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
    });
    let known = Server::start(30).await;
    let probe = json!({ "http": { "host": "localhost", "port": port, "tls": { "ca": "ca.pem" } } });
    let target = target(probe, known.directory.path(), &[]);
    check(
        &attempt(&target, PATIENCE).await,
        false,
        "the answer is not TLS",
    );
    server.join().expect("it ends");
}

#[tokio::test]
async fn a_server_that_never_shakes_hands_ends_with_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let known = Server::start(30).await;
    let probe = json!({ "tcp": { "host": "localhost", "port": port, "tls": { "ca": "ca.pem" } } });
    let target = target(probe, Path::new(known.directory.path()), &[]);
    let seen = attempt(&target, Duration::from_millis(200)).await;
    check(&seen, false, "no TLS within 200ms");
    drop(listener);
}
