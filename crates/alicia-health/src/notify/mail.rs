//! E-mail by SMTP (RFC 5321), with STARTTLS (RFC 3207) or TLS from the first byte, and a password over TLS only.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite,
    AsyncWriteExt as _, BufReader,
};

use super::egress::{Egress, Fault, Kind};
use super::message::{one_line, text, title};
use super::outbox::Waiting;
use crate::config::notify::{Email, MailTls};

/// Longest reply of a server, in bytes: lines of 512 (RFC 5321 section 4.5.3.1.5), and a few dozen of them.
const REPLY_BYTES_MAX: u64 = 32 << 10;

/// Longest line of an encoded body (RFC 2045 section 6.8).
const LINE_CHARS_MAX: usize = 76;

/// Longest encoded word (RFC 2047 section 2), and how many bytes of text fit into its base64.
const WORD_BYTES_MAX: usize = 42;

/// A try of a mail takes several exchanges: this many times the time of one.
const EXCHANGES: u32 = 3;

/// Sends a mail.
pub(super) async fn send(
    egress: &Egress,
    email: &Email,
    password: Option<&str>,
    waiting: &Waiting,
    now: f64,
) -> Result<(), Fault> {
    let within: Duration = egress.timeout * EXCHANGES;
    tokio::time::timeout(within, deliver(egress, email, password, waiting, now))
        .await
        .unwrap_or_else(|_| {
            let within_s = within.as_secs_f64();
            Err(Fault::passing(format!("not delivered within {within_s} s")))
        })
}

async fn deliver(
    egress: &Egress,
    email: &Email,
    password: Option<&str>,
    waiting: &Waiting,
    now: f64,
) -> Result<(), Fault> {
    let (host, port) = server(&email.server, email.tls)?;
    if email.tls == MailTls::None && !egress.allow_private {
        return Err(Fault::last(
            "`tls: none` needs `allow_private: true` for this channel",
        ));
    }
    let stream = egress.connect(&host, port).await?;
    let mail = Mail {
        email,
        login: login(email, password)?,
        data: data(email, waiting, now),
    };
    match email.tls {
        MailTls::Implicit => {
            let stream = egress.shake_hands(&host, stream).await?;
            let mut session = Session::open(stream).await?;
            session.hello().await?;
            session.deliver(&mail).await
        }
        MailTls::Starttls => {
            let mut session = Session::open(stream).await?;
            if !session.hello().await?.has("STARTTLS") {
                return Err(Fault::last(format!("{host} does not offer STARTTLS")));
            }
            session.ask("STARTTLS", 220).await?;
            // What came before TLS and was not read yet could be anybody's (CVE-2011-0411).
            let stream = session.into_plain()?;
            let stream = egress.shake_hands(&host, stream).await?;
            let mut session = Session::on(stream);
            session.hello().await?;
            session.deliver(&mail).await
        }
        MailTls::None => {
            let mut session = Session::open(stream).await?;
            session.hello().await?;
            session.deliver(&mail).await
        }
    }
}

/// A mail, ready to be handed over.
struct Mail<'a> {
    email: &'a Email,
    /// User and password.
    login: Option<(&'a str, &'a str)>,
    data: String,
}

/// A conversation with a server.
struct Session<S> {
    stream: BufReader<S>,
    offers: Offers,
}

/// What a server said that it can do, a word or more per line.
#[derive(Debug, Clone, Default)]
struct Offers(Vec<String>);

impl Offers {
    fn has(&self, what: &str) -> bool {
        self.0.iter().any(|line| {
            let mut words = line.split_whitespace();
            words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case(what))
        })
    }

    fn has_login(&self, how: &str) -> bool {
        let auth = self
            .0
            .iter()
            .filter(|line| line.to_uppercase().starts_with("AUTH"));
        auth.flat_map(|line| line.split([' ', '=']))
            .any(|word| word.eq_ignore_ascii_case(how))
    }
}

// === impl Session ===

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn on(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            offers: Offers::default(),
        }
    }

    /// Waits for the greeting.
    async fn open(stream: S) -> Result<Self, Fault> {
        let mut session = Self::on(stream);
        expect(&session.reply().await?, 220, "the greeting")?;
        Ok(session)
    }

    /// The connection below, where nothing is left unread.
    fn into_plain(self) -> Result<S, Fault> {
        if !self.stream.buffer().is_empty() {
            return Err(Fault::last("the server spoke before TLS was agreed upon"));
        }
        Ok(self.stream.into_inner())
    }

    async fn hello(&mut self) -> Result<Offers, Fault> {
        // A name of our own would tell who we are to no use; a literal is always good (RFC 5321 section 4.1.3).
        let lines = self.ask("EHLO [127.0.0.1]", 250).await?;
        self.offers = Offers(lines);
        Ok(self.offers.clone())
    }

    async fn deliver(&mut self, mail: &Mail<'_>) -> Result<(), Fault> {
        if let Some(login) = mail.login {
            self.log_in(login).await?;
        }
        self.ask(&format!("MAIL FROM:<{}>", mail.email.from), 250)
            .await?;
        let mut refused = None;
        let mut taken = 0;
        for to in &mail.email.to {
            match self.ask(&format!("RCPT TO:<{to}>"), 250).await {
                Ok(_) => taken += 1,
                Err(fault) => {
                    tracing::warn!(to, fault = fault.text, "a receiver was refused");
                    refused = Some(fault);
                }
            }
        }
        if let Some(fault) = refused.filter(|_| taken == 0) {
            return Err(fault);
        }
        self.ask("DATA", 354).await?;
        self.say(&mail.data).await?;
        self.ask(".", 250).await?;
        // It has the mail; how it says goodbye changes nothing.
        drop(self.ask("QUIT", 221).await);
        Ok(())
    }

    async fn log_in(&mut self, (user, password): (&str, &str)) -> Result<(), Fault> {
        if self.offers.has_login("PLAIN") {
            let words = STANDARD.encode(format!("\0{user}\0{password}"));
            let line = format!("AUTH PLAIN {words}");
            return self.ask_for("AUTH", &line, 235).await.map(drop);
        }
        if !self.offers.has_login("LOGIN") {
            return Err(Fault::last(
                "the server offers neither AUTH PLAIN nor AUTH LOGIN",
            ));
        }
        self.ask("AUTH LOGIN", 334).await?;
        self.ask_for("AUTH", &STANDARD.encode(user), 334).await?;
        let password = STANDARD.encode(password);
        self.ask_for("AUTH", &password, 235).await.map(drop)
    }

    /// Says a command and waits for its answer; a fault names its first word.
    async fn ask(&mut self, command: &str, code: u16) -> Result<Vec<String>, Fault> {
        let what = command.split([' ', ':']).next().unwrap_or_default();
        self.ask_for(what, command, code).await
    }

    /// The same with a line that no fault may show, such as a password.
    async fn ask_for(&mut self, what: &str, line: &str, code: u16) -> Result<Vec<String>, Fault> {
        self.say(&format!("{line}\r\n")).await?;
        let reply = self.reply().await?;
        expect(&reply, code, what)?;
        Ok(reply.lines)
    }

    async fn say(&mut self, text: &str) -> Result<(), Fault> {
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn reply(&mut self) -> Result<Reply, Fault> {
        let mut reply = Reply::default();
        let mut limited = (&mut self.stream).take(REPLY_BYTES_MAX);
        loop {
            let line = read_line(&mut limited).await?;
            let (code, rest) = line.split_at_checked(3).unwrap_or(("", &line));
            let code = code
                .parse()
                .map_err(|_| Fault::passing("the server does not speak SMTP"))?;
            reply.code = code;
            reply
                .lines
                .push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                return Ok(reply);
            }
        }
    }
}

/// What a server answered.
#[derive(Debug, Default)]
struct Reply {
    code: u16,
    lines: Vec<String>,
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<String, Fault> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Err(Fault::passing(
            "the server closed the connection, or said too much",
        ));
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Codes from 500 are final, those from 400 pass (RFC 5321 section 4.2.1).
fn expect(reply: &Reply, code: u16, what: &str) -> Result<(), Fault> {
    let Reply { code: found, lines } = reply;
    // 251 and 252 take a receiver as well.
    if *found == code || (code == 250 && (250..=252).contains(found)) {
        return Ok(());
    }
    let said = one_line(&lines.join(" "));
    Err(Fault {
        text: format!("the server answered {what} with {found} {said}"),
        kind: if *found >= 500 {
            Kind::Final
        } else {
            Kind::Passing
        },
        retry_after: None,
    })
}

fn login<'a>(
    email: &'a Email,
    password: Option<&'a str>,
) -> Result<Option<(&'a str, &'a str)>, Fault> {
    match (&email.username, password) {
        (Some(_), Some(_)) if email.tls == MailTls::None => {
            Err(Fault::last("a password is not sent without TLS"))
        }
        (Some(user), Some(password)) => Ok(Some((user, password))),
        _ => Ok(None),
    }
}

/// The host and the port of a server.
pub(crate) fn server(text: &str, tls: MailTls) -> Result<(String, u16), Fault> {
    let usual = if tls == MailTls::Implicit { 465 } else { 587 };
    let fault = || Fault::last(format!("{text:?} is no mail server; expected host:port"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().map_err(|_| fault())?)
        }
        _ => (text, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', ' ', '@']) {
        return Err(fault());
    }
    Ok((host.to_owned(), port))
}

/// Whether a text can stand as an address in a command: one `@`, nothing that ends it.
pub(crate) fn is_address(text: &str) -> bool {
    let plain = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\' | b',' | b';')
    };
    let halves = text.split_once('@');
    text.len() <= 254
        && text.bytes().all(plain)
        && halves
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

/// The mail itself. Its body is base64, so that no line of it can end the mail, whatever is in the alerts.
fn data(email: &Email, waiting: &Waiting, now: f64) -> String {
    let id = &waiting.notification.id;
    let domain = email.from.rsplit('@').next().unwrap_or("localhost");
    let headers = [
        format!("From: Alicia <{}>", email.from),
        format!("To: {}", email.to.join(",\r\n ")),
        format!("Subject: {}", encoded(&title(waiting))),
        format!("Date: {}", date(now)),
        format!("Message-ID: <{id}@{domain}>"),
        "Auto-Submitted: auto-generated".to_owned(),
        "MIME-Version: 1.0".to_owned(),
        "Content-Type: text/plain; charset=utf-8".to_owned(),
        "Content-Transfer-Encoding: base64".to_owned(),
    ];
    let body = STANDARD.encode(text(waiting));
    let lines = body.as_bytes().chunks(LINE_CHARS_MAX);
    let lines: Vec<&str> = lines
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!("{}\r\n\r\n{}\r\n", headers.join("\r\n"), lines.join("\r\n"))
}

/// A header's text as encoded words (RFC 2047), each whole letters of UTF-8.
fn encoded(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for letter in text.chars() {
        if word.len() + letter.len_utf8() > WORD_BYTES_MAX {
            words.push(std::mem::take(&mut word));
        }
        word.push(letter);
    }
    words.push(word);
    let words = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
    words.collect::<Vec<_>>().join("\r\n ")
}

#[expect(clippy::cast_possible_truncation, reason = "the fraction is to go")]
fn date(now: f64) -> String {
    let moment = Timestamp::from_second(now as i64).unwrap_or(Timestamp::UNIX_EPOCH);
    let moment = Zoned::new(moment, TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&moment).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::tests::waiting;

    fn email() -> Email {
        serde_json::from_value(serde_json::json!({
            "server": "mail.example.org", "from": "alicia@example.org", "to": ["ops@example.org", "bob@example.org"],
        }))
        .expect("an email")
    }

    #[test]
    fn a_mail_cannot_be_ended_or_given_headers_from_within() {
        let mut hostile = waiting("firing", 1);
        hostile.notification.summary = "a\r\nBcc: x@example.org\r\n.\r\nQUIT".to_owned();
        hostile.alerts[0].detail = "\r\n.\r\nMAIL FROM:<x@example.org>".to_owned();
        let mail = data(&email(), &hostile, 1_000.0);
        let (head, body) = mail.split_once("\r\n\r\n").expect("a head and a body");
        assert!(!head.contains("Bcc"), "{head}");
        assert!(head.contains("Date: Thu, 1 Jan 1970 00:16:40"), "{head}");
        assert!(
            mail.lines()
                .all(|line| line.len() <= 78 && !line.starts_with('.')),
            "{mail}"
        );
        let body: String = body.split_whitespace().collect();
        let text = STANDARD.decode(body).expect("base64");
        assert!(String::from_utf8_lossy(&text).contains("MAIL FROM"));
    }

    #[test]
    fn servers_and_addresses_are_read_or_refused() {
        let check = |text: &str, tls: MailTls, expected: Option<(&str, u16)>| {
            let found = server(text, tls).ok();
            assert_eq!(
                found,
                expected.map(|(host, port)| (host.to_owned(), port)),
                "{text}"
            );
        };
        check(
            "mail.example.org",
            MailTls::Starttls,
            Some(("mail.example.org", 587)),
        );
        check(
            "mail.example.org",
            MailTls::Implicit,
            Some(("mail.example.org", 465)),
        );
        check("127.0.0.1:2525", MailTls::None, Some(("127.0.0.1", 2525)));
        check("[::1]:25", MailTls::None, Some(("::1", 25)));
        check("mail:xx", MailTls::None, None);
        check("", MailTls::None, None);
        for good in ["a@b", "first.last+tag@example.org"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b>\r\nX",
            "a@b\n",
            "<a@b>",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    /// With AUTH LOGIN user and password are lines of their own.
    #[tokio::test]
    async fn a_password_that_is_refused_is_not_shown() {
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        let answers = b"250-here\r\n250 AUTH LOGIN\r\n334 VXNlcg==\r\n334 UGFzcw==\r\n535 no\r\n";
        theirs.write_all(answers).await.expect("there is room");
        let mut session = Session::on(ours);
        session.hello().await.expect("it greets");
        let fault = session.log_in(("bob", "secret")).await;
        let fault = fault.expect_err("it is refused");
        assert_eq!(fault.text, "the server answered AUTH with 535 no");
        assert_eq!(fault.kind, Kind::Final);
    }

    #[test]
    fn subjects_are_encoded_by_whole_letters() {
        let encoded = encoded(&"Zürich ☂ ".repeat(12));
        for word in encoded.split("\r\n ") {
            assert!(word.len() <= 75, "{word}");
            let inner = word.trim_start_matches("=?utf-8?B?").trim_end_matches("?=");
            assert!(String::from_utf8(STANDARD.decode(inner).expect("base64")).is_ok());
        }
    }
}
