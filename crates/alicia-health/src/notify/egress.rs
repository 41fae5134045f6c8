//! Connections of channels to the outside: the name is resolved here, each address is checked, and the address that
//! was checked is the one that is connected to. No proxy, no redirect, a limit on everything.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{
    CONNECTION, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use axum::http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::refusal;

/// The most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// How much of an answer is read, in bytes: enough for an error text.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How much of an error text of a receiver is kept, in characters.
const SAID_CHARS_MAX: usize = 200;

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In words.
    pub(crate) text: String,
    /// Whether another try could help.
    pub(crate) kind: Kind,
    /// When the receiver wants to be tried again.
    pub(crate) retry_after: Option<Duration>,
}

/// Whether another try could help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It could.
    Passing,
    /// It could not: the receiver does not want it, or may not be spoken to.
    Final,
}

/// How a channel speaks to the outside.
pub(crate) struct Egress {
    pub(crate) allow_private: bool,
    pub(crate) timeout: Duration,
    pub(crate) ca: Option<PathBuf>,
    tls: OnceCell<Arc<ClientConfig>>,
}

/// What is posted.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    /// Where to.
    pub(crate) url: Uri,
    /// Headers beside those that every request has.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub(crate) body: String,
}

// === impl Fault ===

impl Fault {
    pub(crate) fn passing(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            kind: Kind::Passing,
            retry_after: None,
        }
    }

    pub(crate) fn last(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            kind: Kind::Final,
            retry_after: None,
        }
    }
}

// === impl Egress ===

impl Egress {
    pub(crate) fn new(allow_private: bool, timeout: Duration, ca: Option<PathBuf>) -> Self {
        Self {
            allow_private,
            timeout,
            ca,
            tls: OnceCell::new(),
        }
    }

    /// Posts, and gives nothing when the receiver took it.
    pub(crate) async fn post(&self, post: Post) -> Result<(), Fault> {
        let timeout_s = self.timeout.as_secs_f64();
        tokio::time::timeout(self.timeout, self.exchange(post))
            .await
            .unwrap_or_else(|_| Err(Fault::passing(format!("no answer within {timeout_s} s"))))
    }

    async fn exchange(&self, post: Post) -> Result<(), Fault> {
        let place = Place::of(&post.url)?;
        if !place.tls && !self.allow_private {
            return Err(Fault::last(
                "the URL begins with http:; use https:, or set `allow_private: true` for this channel",
            ));
        }
        let stream = self.connect(&place.host, place.port).await?;
        let request = request(&place, post)?;
        if place.tls {
            let stream = self.shake_hands(&place.host, stream).await?;
            send(stream, request).await
        } else {
            send(stream, request).await
        }
    }

    /// Connects to the first address of a host that may be spoken to and takes the connection.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Fault> {
        let addresses = lookup_host((host, port))
            .await
            .map_err(|error| Fault::passing(format!("the host {host} was not found: {error}")))?;
        let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_MAX).collect();
        // One address that is not open makes the name suspect: none of the others is tried.
        for address in &addresses {
            if let Some(why) = refusal(address.ip(), self.allow_private) {
                return Err(Fault::last(format!("{host} is not spoken to: {why}")));
            }
        }
        // One that does not answer at all must not take the time of the others.
        let each = u32::try_from(addresses.len())
            .map_or(self.timeout, |count| self.timeout / count.max(1));
        let mut fault = Fault::passing(format!("the host {host} has no address"));
        for address in addresses {
            let connected = tokio::time::timeout(each, TcpStream::connect(address)).await;
            let error = match connected {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", each.as_secs_f64()),
            };
            fault = Fault::passing(format!("failed to connect to {address}: {error}"));
        }
        Err(fault)
    }

    /// Speaks TLS on a connection.
    pub(crate) async fn shake_hands(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Fault::last(format!("{host} is no name that TLS can check")))?;
        let config = self.tls.get_or_try_init(|| self.trust()).await?;
        TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
            .map_err(|error| Fault::passing(format!("no TLS with {host}: {error}")))
    }

    async fn trust(&self) -> Result<Arc<ClientConfig>, Fault> {
        let ca = self.ca.clone();
        // Files are read, of the system or of the user.
        let roots = tokio::task::spawn_blocking(move || roots(ca)).await;
        let roots = roots.map_err(|error| Fault::passing(error.to_string()))?;
        let roots = roots.map_err(Fault::passing)?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

fn roots(ca: Option<PathBuf>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates: Vec<CertificateDer<'static>> = match &ca {
        None => rustls_native_certs::load_native_certs().certs,
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| {
                format!("failed to read certificates of {}: {error}", path.display())
            })?,
    };
    let (good, _) = roots.add_parsable_certificates(certificates);
    if good == 0 {
        let place = ca.map_or("this machine".to_owned(), |path| path.display().to_string());
        return Err(format!("{place} has no certificates to trust"));
    }
    Ok(roots)
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    authority: String,
    path: String,
}

impl Place {
    /// Reads a URL.
    pub(crate) fn of(url: &Uri) -> Result<Self, Fault> {
        let fault = |text: &str| Fault::last(format!("the URL cannot be used: {text}"));
        let tls = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(fault("expected https://…")),
        };
        let authority = url.authority().ok_or_else(|| fault("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(fault("it has a user or password; use a file for secrets"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(fault("it has no host"));
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
        })
    }
}

fn request(place: &Place, post: Post) -> Result<Request<String>, Fault> {
    let unusable = |_| Fault::last("the URL cannot be used");
    let mut request = Request::new(post.body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = place
        .path
        .parse()
        .map_err(|_| Fault::last("the path of the URL cannot be used"))?;
    let headers = request.headers_mut();
    headers.insert(
        HOST,
        HeaderValue::from_str(&place.authority).map_err(unusable)?,
    );
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let agent = concat!("alicia/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    headers.extend(post.headers);
    Ok(request)
}

async fn send<S>(stream: S, request: Request<String>) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_BYTES_MAX)
        .handshake::<_, String>(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await;
        judge(answer.map_err(|error| said(&error))?).await
    };
    // The connection is driven by this future, so that nothing outlives the try.
    let (mut exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        _ = connection => exchange.await,
    }
}

async fn judge(answer: Response<Incoming>) -> Result<(), Fault> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let retry_after = wanted_pause(answer.headers());
    let said = read(answer.into_body()).await;
    let text = if said.is_empty() {
        format!("the receiver answered HTTP {}", status.as_u16())
    } else {
        format!("the receiver answered HTTP {}: {said}", status.as_u16())
    };
    // Too early, too many, timed out: another try is welcome. Other refusals and redirects are final.
    let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    Err(Fault {
        text,
        kind: if passing { Kind::Passing } else { Kind::Final },
        retry_after,
    })
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date, which is read by the receiver's own clock.
fn wanted_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim().to_owned());
    let wanted = text(RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| {
        let moment = jiff::fmt::rfc2822::parse(text).ok()?;
        Some(moment.timestamp().as_second())
    };
    let (until, now) = (moment(&wanted)?, moment(&text(DATE)?)?);
    u64::try_from(until - now).ok().map(Duration::from_secs)
}

/// The beginning of an answer, in one line.
async fn read(mut body: Incoming) -> String {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        if bytes.len() >= SAID_CHARS_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let text: String = text.chars().map(plain).take(SAID_CHARS_MAX).collect();
    text.trim().to_owned()
}

fn said(error: &hyper::Error) -> Fault {
    let source = std::error::Error::source(error);
    let cause = source.map_or_else(|| error.to_string(), ToString::to_string);
    Fault::passing(format!("the exchange broke off: {cause}"))
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::passing(format!("the connection broke off: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_a_place_or_is_refused() {
        let place = |url: &str| Place::of(&url.parse().expect(url));
        let found = place("https://hooks.example.org/a?b=c").expect("a place");
        assert_eq!(
            (found.host.as_str(), found.port, found.tls),
            ("hooks.example.org", 443, true)
        );
        assert_eq!(found.path, "/a?b=c");
        let found = place("http://[::1]:8080").expect("a place");
        assert_eq!(
            (found.host.as_str(), found.port, found.path.as_str()),
            ("::1", 8080, "/")
        );
        for bad in [
            "ftp://example.org/",
            "https://user:secret@example.org/",
            "/only/a/path",
        ] {
            let fault = place(bad).expect_err(bad);
            assert_eq!(fault.kind, Kind::Final);
            assert!(!fault.text.contains("user:"), "{}", fault.text);
        }
    }

    #[test]
    fn a_pause_is_wanted_in_seconds_or_until_a_date() {
        let check = |wanted: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from_str(wanted).expect("a header"),
            );
            let now = HeaderValue::from_static("Sat, 21 Nov 2026 12:00:00 GMT");
            headers.insert(DATE, now);
            assert_eq!(
                wanted_pause(&headers),
                expected.map(Duration::from_secs),
                "{wanted}"
            );
        };
        check("120", Some(120));
        check("Sat, 21 Nov 2026 12:01:30 GMT", Some(90));
        check("Sat, 21 Nov 2026 11:00:00 GMT", None);
        check("soon", None);
    }

    #[tokio::test]
    async fn what_is_private_is_not_spoken_to_however_it_is_written() {
        let egress = Egress::new(false, Duration::from_secs(5), None);
        for host in [
            "127.0.0.1",
            "localhost",
            "::1",
            "169.254.169.254",
            "::ffff:10.0.0.1",
            "0x7f000001",
            "127.1",
        ] {
            let fault = egress.connect(host, 9).await.expect_err(host);
            let spoken =
                fault.text.contains("is not spoken to") || fault.text.contains("was not found");
            assert!(spoken, "{host}: {}", fault.text);
        }
        let post = Post {
            url: "http://1.1.1.1/".parse().expect("a URL"),
            headers: Vec::new(),
            body: String::new(),
        };
        let fault = egress.post(post).await.expect_err("without TLS");
        assert_eq!(fault.kind, Kind::Final);
    }
}
