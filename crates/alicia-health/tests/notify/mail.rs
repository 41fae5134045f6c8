//! A mail server that somebody else wrote: aiosmtpd, with STARTTLS and a password.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use alicia_testkit::house::{free_port, has};
use alicia_testkit::until;
use serde_json::Value;

/// The system's own Python, for which Debian packages modules.
const PYTHON: &str = "/usr/bin/python3";

/// What it runs; the arguments are the port, the directory for mails, certificate and key.
const SERVER: &str = "
import asyncio, email, email.policy, json, os, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

port, out, cert, key = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]

class Keep:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        row = {
            'from': envelope.mail_from, 'to': envelope.rcpt_tos, 'tls': session.ssl is not None,
            'user': session.auth_data.login.decode() if session.auth_data else None,
            'subject': str(mail['subject']), 'id': str(mail['message-id']), 'text': mail.get_content(),
        }
        with open(out + '.part', 'w') as file:
            json.dump(row, file)
        os.rename(out + '.part', out)
        return '250 taken'

def check(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b'alicia', b'hunter2hunter2')
    return AuthResult(success=good, auth_data=data)

async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    make = lambda: SMTP(Keep(), hostname='sink', tls_context=tls, require_starttls=True, authenticator=check,
                        auth_required=True, auth_require_tls=True)
    server = await asyncio.get_running_loop().create_server(make, '127.0.0.1', port)
    await server.serve_forever()

asyncio.run(main())
";

pub(crate) struct Sink {
    pub(crate) port: u16,
    directory: tempfile::TempDir,
    server: Child,
}

impl Sink {
    /// Starts one; `None` where aiosmtpd is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let found = Command::new(PYTHON)
            .args(["-c", "import aiosmtpd"])
            .output();
        let is_there = found.is_ok_and(|output| output.status.success());
        if !has(
            is_there,
            "aiosmtpd is not installed (Debian: python3-aiosmtpd)",
        ) {
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .expect("a certificate");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("cert.pem"), made.cert.pem()).expect("written");
        std::fs::write(at("key.pem"), made.signing_key.serialize_pem()).expect("written");
        let port = free_port();
        let server = Command::new(PYTHON)
            .args(["-c", SERVER, &port.to_string()])
            .args([at("mail.json"), at("cert.pem"), at("key.pem")])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        until("the mail server listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        })
        .await;
        Some(Self {
            port,
            directory,
            server,
        })
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The mail that came.
    pub(crate) async fn mail(&self) -> Value {
        let path: &Path = &self.directory.path().join("mail.json");
        until("a mail came", async || path.exists()).await;
        serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
