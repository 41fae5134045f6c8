//! JSON Web Signatures (RFC 7515) with `EdDSA` (RFC 8037) and no other algorithm.
//!
//! The algorithm is checked, not chosen: what says `none` or `HS256` is refused before any key is looked up
//! (RFC 8725, section 3.1). So is a header with a member that is not known, `crit` among them, or one that
//! stands there twice.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::key::{PublicKey, SIGNATURE_BYTES, SigningKey};

/// The one algorithm.
pub const ALGORITHM: &str = "EdDSA";

/// A longer credential is not looked at: ours have some 500 bytes.
pub const COMPACT_BYTES_MAX: usize = 4_096;

/// Signatures of one document: the present signing key's and those that overlap with it.
pub const SIGNATURES_MAX: usize = 4;

/// The protected header of credentials and documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// A document with one signature or several: the general form, RFC 7515 section 7.2.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The content in base64url.
    pub payload: String,
    /// Who signed it; one good signature is enough.
    pub signatures: Vec<DocumentSignature>,
}

/// One signature of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentSignature {
    /// The protected header in base64url.
    pub protected: String,
    /// The signature in base64url.
    pub signature: String,
}

/// The text that is signed.
pub(crate) fn signing_input(protected: &str, payload: &str) -> Vec<u8> {
    format!("{protected}.{payload}").into_bytes()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn header(key: &SigningKey, typ: &str) -> String {
    let header = Header {
        alg: ALGORITHM.to_owned(),
        kid: key.public().thumbprint(),
        typ: typ.to_owned(),
    };
    encode(serde_json::to_vec(&header).expect("a header is plain text"))
}

/// Signs content of a type in the compact form: `<header>.<content>.<signature>`.
#[must_use]
pub fn sign_compact(key: &SigningKey, typ: &str, content: &[u8]) -> String {
    let text = format!("{}.{}", header(key, typ), encode(content));
    let signature = encode(key.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// The content of a compact signature of this type by one of these keys; `None` when it is none.
#[must_use]
pub fn open_compact(text: &str, typ: &str, keys: &[PublicKey]) -> Option<Vec<u8>> {
    if text.len() > COMPACT_BYTES_MAX {
        return None;
    }
    let (signed, signature) = text.rsplit_once('.')?;
    let (protected, payload) = signed.split_once('.')?;
    let is_good = is_signed(protected, signed.as_bytes(), signature, typ, keys);
    is_good.then(|| decode(payload)).flatten()
}

/// Signs a document with every key of the overlap, the present one first.
#[must_use]
pub fn sign_document(keys: &[&SigningKey], typ: &str, content: &[u8]) -> Document {
    let payload = encode(content);
    let sign = |key: &&SigningKey| {
        let protected = header(key, typ);
        let signature = encode(key.sign(&signing_input(&protected, &payload)));
        DocumentSignature {
            protected,
            signature,
        }
    };
    let signatures = keys.iter().take(SIGNATURES_MAX).map(sign).collect();
    Document {
        payload,
        signatures,
    }
}

/// The content of a document of this type that one of these keys has signed; `None` when none has.
#[must_use]
pub fn open_document(document: &Document, typ: &str, keys: &[PublicKey]) -> Option<Vec<u8>> {
    let is_good = |one: &DocumentSignature| {
        let signed = signing_input(&one.protected, &document.payload);
        is_signed(&one.protected, &signed, &one.signature, typ, keys)
    };
    let mut signatures = document.signatures.iter().take(SIGNATURES_MAX);
    signatures.any(is_good).then(|| decode(&document.payload))?
}

fn is_signed(
    protected: &str,
    signed: &[u8],
    signature: &str,
    typ: &str,
    keys: &[PublicKey],
) -> bool {
    let header: Option<Header> =
        decode(protected).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(header) = header.filter(|header| header.alg == ALGORITHM && header.typ == typ) else {
        return false;
    };
    let signature = decode(signature).filter(|bytes| bytes.len() == SIGNATURE_BYTES);
    let key = keys.iter().find(|key| key.thumbprint() == header.kid);
    matches!((key, signature), (Some(key), Some(signature)) if key.verify(signed, &signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed([n; 32])
    }

    fn forged(header: &str, key: &SigningKey) -> String {
        let text = format!("{}.{}", encode(header), encode("{}"));
        format!("{text}.{}", encode(key.sign(text.as_bytes())))
    }

    #[test]
    fn the_signature_of_rfc_8037_comes_out() {
        let key = SigningKey::from_text("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
        let key = key.expect("a seed");
        let protected = encode(r#"{"alg":"EdDSA"}"#);
        let signed = signing_input(&protected, &encode("Example of Ed25519 signing"));
        let expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(encode(key.sign(&signed)), expected);
    }

    #[test]
    fn a_compact_signature_is_good_for_its_type_and_keys() {
        let text = sign_compact(&key(1), "a", b"{}");
        let keys = [key(2).public(), key(1).public()];
        assert_eq!(open_compact(&text, "a", &keys).as_deref(), Some(&b"{}"[..]));
        assert_eq!(open_compact(&text, "b", &keys), None);
        assert_eq!(open_compact(&text, "a", &keys[..1]), None);
        assert_eq!(open_compact(&text, "a", &[]), None);
    }

    #[test]
    fn other_algorithms_unknown_and_repeated_members_are_refused() {
        let signer = key(1);
        let keys = [signer.public()];
        let kid = signer.public().thumbprint();
        let good = format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"a"}}"#);
        assert!(open_compact(&forged(&good, &signer), "a", &keys).is_some());
        for bad in [
            format!(r#"{{"alg":"none","kid":"{kid}","typ":"a"}}"#),
            format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"a"}}"#),
            format!(r#"{{"alg":"none","alg":"EdDSA","kid":"{kid}","typ":"a"}}"#),
            format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"a","crit":["b64"],"b64":false}}"#),
            format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#),
            r#"{"alg":"EdDSA","kid":"other","typ":"a"}"#.to_owned(),
        ] {
            assert_eq!(
                open_compact(&forged(&bad, &signer), "a", &keys),
                None,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_document_is_good_for_who_knows_any_of_its_signers() {
        let document = sign_document(&[&key(2), &key(1)], "keys", b"content");
        for n in [1, 2] {
            let content = open_document(&document, "keys", &[key(n).public()]);
            assert_eq!(content.as_deref(), Some(&b"content"[..]));
        }
        assert_eq!(open_document(&document, "keys", &[key(3).public()]), None);
        assert_eq!(open_document(&document, "other", &[key(1).public()]), None);
        let mut changed = document.clone();
        changed.payload = encode("kontent");
        assert_eq!(open_document(&changed, "keys", &[key(1).public()]), None);
    }
}
