//! Messages of DNS (RFC 1035, section 4): writing a question, reading an answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use alicia_contract::fleet::DnsType;

use super::{UDP_BYTES_MAX, number};

/// The class of the internet.
const CLASS: u16 = 1;

/// The pseudo record that says how large an answer may be (RFC 6891).
const OPT: u16 = 41;

/// The most pointers that are followed in one name; each leads back, and a loop must end.
const POINTERS_MAX: usize = 16;

/// The longest name, in bytes (section 2.3.4). Pointers could make one of many times a message.
const NAME_BYTES_MAX: usize = 255;

/// The most records that are read.
const RECORDS_MAX: u16 = 256;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: DnsType,
    encoded: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0: no error.
    pub(super) code: u8,
    /// Whether it was too large to be sent whole.
    pub(super) is_cut: bool,
    /// The records of the type that was asked for, in words.
    pub(super) records: Vec<String>,
}

/// The name of a type of record.
pub(super) const fn shown(kind: DnsType) -> &'static str {
    match kind {
        DnsType::A => "A",
        DnsType::Ns => "NS",
        DnsType::Cname => "CNAME",
        DnsType::Mx => "MX",
        DnsType::Txt => "TXT",
        DnsType::Aaaa => "AAAA",
    }
}

// === impl Question ===

impl Question {
    /// `None`: it is no name.
    pub(super) fn new(name: &str, kind: DnsType) -> Option<Self> {
        let name = name.trim_end_matches('.').to_owned();
        let mut encoded = Vec::new();
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok()?;
            if !(1..=63).contains(&length) || !label.is_ascii() {
                return None;
            }
            encoded.push(length);
            encoded.extend_from_slice(label.as_bytes());
        }
        encoded.push(0);
        (encoded.len() <= 255).then_some(Self {
            name,
            kind,
            encoded,
        })
    }

    pub(super) fn message(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::new();
        let mut put = |number: u16| message.extend_from_slice(&number.to_be_bytes());
        put(id);
        put(0x0100); // recursion is desired
        put(1); // one question
        put(0);
        put(0);
        put(1); // one additional record: how much we read
        message.extend_from_slice(&self.encoded);
        let mut put = |number: u16| message.extend_from_slice(&number.to_be_bytes());
        put(number(self.kind));
        put(CLASS);
        message.push(0); // the root
        let mut put = |number: u16| message.extend_from_slice(&number.to_be_bytes());
        put(OPT);
        put(u16::try_from(UDP_BYTES_MAX).unwrap_or(512));
        put(0);
        put(0);
        put(0);
        message
    }

    /// The answer to this question. `None`: it is none.
    pub(super) fn read(&self, id: u16, message: &[u8]) -> Option<Answer> {
        let mut reader = Reader { message, at: 0 };
        let (found, flags) = (reader.u16()?, reader.u16()?);
        let (questions, answers) = (reader.u16()?, reader.u16()?);
        reader.skip(4)?;
        let is_answer = flags & 0x8000 != 0;
        if found != id || !is_answer || questions != 1 {
            return None;
        }
        let asked = reader.name()?;
        let kind = reader.u16()?;
        reader.skip(2)?;
        if !asked.eq_ignore_ascii_case(&self.name) || kind != number(self.kind) {
            return None;
        }
        let is_cut = flags & 0x0200 != 0;
        let mut records = Vec::new();
        for _ in 0..answers.min(RECORDS_MAX) {
            match reader.record(self.kind) {
                Some(record) => records.extend(record),
                // What is left of one that was cut is asked for again.
                None if is_cut => break,
                None => return None,
            }
        }
        Some(Answer {
            code: u8::try_from(flags & 0x000f).unwrap_or_default(),
            is_cut,
            records,
        })
    }
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.message.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at = self.at.checked_add(bytes)?;
        (self.at <= self.message.len()).then_some(())
    }

    fn bytes(&mut self, length: usize) -> Option<&[u8]> {
        let from = self.at;
        self.skip(length)?;
        self.message.get(from..self.at)
    }

    /// A record of this type in words; the inner `None`: it is of another type.
    fn record(&mut self, wanted: DnsType) -> Option<Option<String>> {
        self.name()?;
        let kind = self.u16()?;
        self.skip(6)?;
        let length = usize::from(self.u16()?);
        let end = self.at.checked_add(length)?;
        let record = match kind == number(wanted) {
            true => Some(self.data(wanted, length)?),
            false => None,
        };
        self.at = end;
        (end <= self.message.len()).then_some(record)
    }

    fn data(&mut self, kind: DnsType, length: usize) -> Option<String> {
        match kind {
            DnsType::A => {
                let octets: [u8; 4] = self.bytes(length)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).to_string())
            }
            DnsType::Aaaa => {
                let octets: [u8; 16] = self.bytes(length)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).to_string())
            }
            DnsType::Cname | DnsType::Ns => self.name(),
            DnsType::Mx => {
                let preference = self.u16()?;
                Some(format!("{preference} {}", self.name()?))
            }
            DnsType::Txt => {
                let end = self.at.checked_add(length)?;
                let mut text = Vec::new();
                while self.at < end {
                    let part = usize::from(self.u8()?);
                    text.extend_from_slice(self.bytes(part)?);
                }
                Some(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }

    /// A name, which may go on somewhere before (section 4.1.4).
    fn name(&mut self) -> Option<String> {
        let mut labels = Vec::new();
        let mut after = None;
        let (mut pointers, mut bytes) = (0, 0);
        loop {
            let length = self.u8()?;
            match length {
                0 => break,
                1..=63 => {
                    bytes += usize::from(length) + 1;
                    if bytes > NAME_BYTES_MAX {
                        return None;
                    }
                    let label = self.bytes(usize::from(length))?;
                    labels.push(String::from_utf8_lossy(label).into_owned());
                }
                0xc0.. => {
                    let low = self.u8()?;
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        return None;
                    }
                    after.get_or_insert(self.at);
                    self.at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(self.at);
        Some(labels.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(kind: DnsType) -> Question {
        Question::new("Example.org.", kind).expect("a name")
    }

    /// An answer with these records, whose names point at the question.
    fn answer(question: &Question, flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = question.message(7);
        message[2..4].copy_from_slice(&(0x8000 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
        message.truncate(12 + question.encoded.len() + 4);
        for (kind, data) in records {
            message.extend_from_slice(&[0xc0, 12]);
            message.extend_from_slice(&kind.to_be_bytes());
            message.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            message.extend_from_slice(&u16::try_from(data.len()).expect("small").to_be_bytes());
            message.extend_from_slice(data);
        }
        message
    }

    #[test]
    fn records_are_read() {
        let check = |kind: DnsType, data: &[u8], expected: &str| {
            let question = question(kind);
            let message = answer(&question, 0, &[(5, &[0xc0, 12]), (number(kind), data)]);
            let answer = question.read(7, &message).expect("an answer");
            let last = answer.records.last().expect("a record");
            assert_eq!((answer.code, last.as_str()), (0, expected));
        };
        check(DnsType::A, &[192, 0, 2, 7], "192.0.2.7");
        let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        check(DnsType::Aaaa, &loopback, "::1");
        check(DnsType::Mx, &[0, 10, 1, b'm', 0xc0, 12], "10 m.Example.org");
        check(DnsType::Txt, &[2, b'a', b'b', 1, b'c'], "abc");
    }

    #[test]
    fn what_is_no_answer_to_this_question_is_none() {
        let question = question(DnsType::A);
        let good = answer(&question, 3, &[]);
        assert_eq!(question.read(7, &good).expect("an answer").code, 3);
        assert_eq!(question.read(8, &good), None, "another id");
        assert_eq!(question.read(7, &question.message(7)), None, "a question");
        let other = Question::new("other.org", DnsType::A).expect("a name");
        assert_eq!(other.read(7, &good), None, "another name");
        // A name that points at itself.
        let mut looped = answer(&question, 0, &[(1, &[1, 2, 3, 4])]);
        let at = looped.len() - 16;
        let pointer = u8::try_from(at).expect("small");
        looped[at..at + 2].copy_from_slice(&[0xc0, pointer]);
        assert_eq!(question.read(7, &looped), None);
    }

    #[test]
    fn a_name_that_is_longer_than_names_are_is_none() {
        let question = question(DnsType::Cname);
        let of = |labels: usize| {
            let mut name = [[9_u8; 10]; 30][..labels].concat();
            name.push(0);
            let message = answer(&question, 0, &[(number(DnsType::Cname), &name)]);
            question.read(7, &message)
        };
        assert!(of(25).is_some());
        assert_eq!(of(26), None);
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_none() {
        for name in ["", "a..b", &"x".repeat(64), &"long.".repeat(60), "ä"] {
            assert_eq!(Question::new(name, DnsType::A), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(noise in prop::collection::vec(any::<u8>(), 0..200), at in 12_usize..60) {
            let question = question(DnsType::Mx);
            let mut message = answer(&question, 0, &[(15, &[0, 1, 0])]);
            message.truncate(at);
            message.extend(noise);
            question.read(7, &message);
        }
    }
}
