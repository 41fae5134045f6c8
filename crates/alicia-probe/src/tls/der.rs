//! The end of a certificate's life, read from its DER (RFC 5280, section 4.1). Nothing else of it is read: rustls has
//! checked the rest.

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, the version, which only old certificates leave out.
const VERSION: u8 = 0xa0;

/// When the certificate ends, in seconds since 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let mut certificate = Reader(certificate);
    let mut signed = Reader(certificate.expect(SEQUENCE)?);
    let mut fields = Reader(signed.expect(SEQUENCE)?);
    let (tag, _) = fields.next()?;
    if tag == VERSION {
        fields.expect(INTEGER)?;
    }
    fields.expect(SEQUENCE)?; // the algorithm of the signature
    fields.expect(SEQUENCE)?; // the issuer
    let mut validity = Reader(fields.expect(SEQUENCE)?);
    validity.next()?;
    match validity.next()? {
        (UTC_TIME, text) => {
            let (year, rest) = number(text, 2)?;
            // 50 to 99 are of the last century (section 4.1.2.5.1).
            let century = if year >= 50 { 1_900 } else { 2_000 };
            time(century + year, rest)
        }
        (GENERALIZED_TIME, text) => {
            let (year, rest) = number(text, 4)?;
            time(year, rest)
        }
        _ => None,
    }
}

/// Values of DER, one after the other.
struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    /// The next value: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first & 0x80 != 0 {
            let bytes = usize::from(first & 0x7f);
            if !(1..=4).contains(&bytes) {
                return None;
            }
            let (written, after) = rest.split_at_checked(bytes)?;
            length = written
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, expected: u8) -> Option<&'d [u8]> {
        self.next()
            .filter(|(tag, _)| *tag == expected)
            .map(|(_, value)| value)
    }
}

fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (written, rest) = text.split_at_checked(digits)?;
    let mut value = 0;
    for digit in written {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some((value, rest))
}

/// `MMDDHHMMSSZ` of a year.
fn time(year: i64, text: &[u8]) -> Option<i64> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && text == b"Z";
    fits.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days since 1970 of a date of the Gregorian calendar: years are counted from March, so that a leap day is the last of
/// its year, and in eras of 400 years, which all have 146 097 days.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11_016);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(days(2026, 11, 21), 20_778);
        assert_eq!(time(2001, b"0909014640Z"), Some(1_000_000_000));
        assert_eq!(time(2001, b"1309014640Z"), None);
        assert_eq!(time(2001, b"0909014640"), None);
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        let check = |year: i32, expected: i64| {
            let mut parameters =
                rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
            parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = parameters.self_signed(&key).expect("a certificate");
            assert_eq!(not_after(certificate.der()), Some(expected), "{year}");
        };
        check(2030, 1_893_456_000);
        check(2060, 2_840_140_800);
    }

    proptest! {
        #[test]
        fn noise_is_no_certificate_and_does_not_panic(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            not_after(&noise);
        }
    }
}
