//! TLS by rustls, and how long the certificate of the other side is still good.

mod der;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alicia_contract::fleet::TlsCheck;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::attempt::Deadline;
use crate::secret;
use crate::target::TargetError;

const DAY_S: i64 = 86_400;

/// How TLS is spoken with a place.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// The file with the certificates to trust; none: those of this machine.
    ca: Option<PathBuf>,
    name: ServerName<'static>,
    days_left_min: Option<u32>,
}

// === impl Tls ===

impl Tls {
    pub(crate) fn new(check: &TlsCheck, host: &str, directory: &Path) -> Result<Self, TargetError> {
        let name = check.server_name.as_deref().unwrap_or(host);
        Ok(Self {
            ca: check.ca.as_ref().map(|path| directory.join(path)),
            name: ServerName::try_from(name.to_owned())
                .map_err(|_| TargetError::ServerName(name.to_owned()))?,
            days_left_min: check.days_left_min,
        })
    }

    /// Shakes hands, and looks at the certificate. With the connection comes what is worth saying about it.
    pub(crate) async fn shake_hands(
        &self,
        stream: TcpStream,
        protocols: &[&[u8]],
        deadline: &Deadline,
    ) -> Result<(TlsStream<TcpStream>, String), String> {
        let mut config = self.config(deadline).await?;
        if !protocols.is_empty() {
            let config = Arc::make_mut(&mut config);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        }
        let connector = TlsConnector::from(config);
        let stream = deadline
            .within("no TLS", connector.connect(self.name.clone(), stream))
            .await?
            .map_err(|error| said(&error))?;
        let note = self.judge(&stream)?;
        Ok((stream, note))
    }

    /// The file of a private authority is read at each try, so that a new one counts at once.
    async fn config(&self, deadline: &Deadline) -> Result<Arc<ClientConfig>, String> {
        let Some(path) = &self.ca else {
            return of_this_machine();
        };
        let shown = path.display();
        let text = secret::read_file("the certificates of", path, deadline).await?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate
                .map_err(|error| format!("failed to read the certificates of {shown}: {error}"))?;
            roots
                .add(certificate)
                .map_err(|error| format!("failed to trust a certificate of {shown}: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("there is no certificate in {shown}, expected PEM"));
        }
        trusting(roots).map(Arc::new)
    }

    fn judge(&self, stream: &TlsStream<TcpStream>) -> Result<String, String> {
        let certificates = stream.get_ref().1.peer_certificates();
        let ends = certificates
            .and_then(<[_]>::first)
            .and_then(|certificate| der::not_after(certificate));
        let Some(ends) = ends else {
            return match self.days_left_min {
                None => Ok(String::new()),
                Some(_) => Err("the certificate does not say how long it is good".to_owned()),
            };
        };
        let days = (ends - unix_now()).div_euclid(DAY_S);
        match self.days_left_min {
            Some(expected) if days < i64::from(expected) => Err(format!(
                "the certificate is good for {days} more days, expected {expected} or more"
            )),
            _ => Ok(format!(", certificate good for {days} days")),
        }
    }
}

/// Trusts what this machine trusts. Read once: it is some hundred files.
fn of_this_machine() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let text = "this machine trusts no certificate (on Debian, install ca-certificates), and no `ca` is given";
            return Err(text.to_owned());
        }
        trusting(roots).map(Arc::new)
    };
    CONFIG.get_or_init(read).clone()
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("failed to prepare TLS: {error}"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// An error of a handshake in words.
fn said(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            format!("the certificate is not trusted: {why}")
        }
        Some(rustls::Error::InvalidMessage(_)) => "the answer is not TLS".to_owned(),
        _ => format!("no TLS: {error}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate ends at a wall time, and rustls checks it against the same clock"
)]
fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
