//! The keys of the audit log: one hashes what looks like a secret, one signs checkpoints. Files of mode 0400.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use alicia_signature::key::{PublicKey, SigningKey};
use alicia_store::audit::Key;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const KEY_MODE: u32 = 0o400;

/// The file of the key that signs.
const SIGNING: &str = "signing.key";
/// Its public half, to be kept elsewhere by who wants to be sure.
pub const PUBLIC: &str = "signing.pub";
/// The file of the key that hashes.
const HASHING: &str = "hashing.key";

/// Both keys.
pub(crate) struct AuditKeys {
    pub(crate) signing: SigningKey,
    pub(crate) hashing: Key,
}

impl AuditKeys {
    /// Reads them, and makes what is not there.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let signing = open_key(&directory.join(SIGNING))?;
        let hashing = open_key(&directory.join(HASHING))?;
        let public = directory.join(PUBLIC);
        if !public.exists() {
            write_new(&public, &signing.public().to_string())?;
        }
        // Both files have one form; of this one the 32 bytes are what is wanted.
        let bytes = URL_SAFE_NO_PAD
            .decode(hashing.reveal())
            .map_err(io::Error::other)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| io::Error::other("a key has 32 bytes"))?;
        Ok(Self {
            signing,
            hashing: Key::new(bytes),
        })
    }
}

/// The key that checks signatures.
///
/// # Errors
/// When the file is not there, or holds no key.
pub fn public_key(directory: &Path) -> io::Result<PublicKey> {
    let text = fs::read_to_string(directory.join(PUBLIC))?;
    PublicKey::from_text(text.trim()).map_err(io::Error::other)
}

fn open_key(path: &Path) -> io::Result<SigningKey> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SigningKey::generate().map_err(io::Error::other)?;
            write_new(path, &key.reveal())?;
            return Ok(key);
        }
        text => text?,
    };
    SigningKey::from_text(text.trim()).map_err(io::Error::other)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(KEY_MODE)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}
