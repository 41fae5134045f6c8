//! The file of sealed secrets.
//!
//! ```text
//!  vault.key (0400) ──seals──► data key of a secret ──seals──► its value
//!                    ╰──────────── both in vault.json (0600) ──────────╯
//! ```
//!
//! Name and version are bound in, so that entries cannot be exchanged or set back one by one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::seal::{self, KEY_BYTES, Key};
use crate::secret::Secret;

/// The longest name, as for instances.
pub const NAME_BYTES_MAX: usize = 63;

/// The longest value: what the keeper passes to a process.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The most secrets: the file is read as a whole.
pub const SECRETS_MAX: usize = 1_000;

/// The file has at most all secrets of full length, in base64.
const FILE_BYTES_MAX: u64 = (SECRETS_MAX * VALUE_BYTES_MAX * 2) as u64;

const FORMAT: u32 = 1;
const FILE_MODE: u32 = 0o600;
const KEY_MODE: u32 = 0o400;
const DIRECTORY_MODE: u32 = 0o700;

/// The file of a key has its digits, and blanks around them.
const KEY_FILE_BYTES_MAX: usize = 4 * KEY_BYTES;

/// What the vault's key seals to be known again.
const KEY_MARK: &str = "alicia vault key";

/// Secrets on disk. Cheap to clone; every call reads the file.
#[derive(Debug, Clone)]
pub struct Vault {
    directory: PathBuf,
    key_file: PathBuf,
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// 1 when it was first set, then one more with each change.
    pub version: u64,
    /// When it was first set, in Unix seconds.
    pub created: f64,
    /// When it was last changed, in Unix seconds.
    pub changed: f64,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    format: u32,
    /// [`KEY_MARK`], sealed: tells a wrong key from damage.
    mark: String,
    secrets: BTreeMap<String, Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    version: u64,
    created: f64,
    changed: f64,
    /// The data key, sealed with the vault's.
    key: String,
    /// The value, sealed with the data key.
    value: String,
}

/// Whether a text can name a secret: `[a-z0-9-]{1,63}`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

// === impl Vault ===

impl Vault {
    /// The vault in a directory, which is made if it is not there. `key_file` is `vault.key` beside it unless given;
    /// it is made with the first secret.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(directory: &Path, key_file: Option<&Path>) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(file("make", directory))?;
        let key_file = key_file.map_or_else(|| directory.join("vault.key"), Path::to_owned);
        Ok(Self {
            directory: directory.to_owned(),
            key_file,
        })
    }

    /// Every secret, by name, without values. Needs no key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list(&self) -> Result<Vec<Described>, Error> {
        let contents = self.read()?;
        let secrets = contents.into_iter().flat_map(|contents| contents.secrets);
        Ok(secrets.map(|(name, entry)| entry.describe(name)).collect())
    }

    /// Sets a secret, new or not, and gives what it is now.
    ///
    /// # Errors
    /// A bad name or value, too many secrets, or a file that cannot be written: then nothing has changed.
    pub fn set(&self, name: &str, value: Secret, now_unix: f64) -> Result<Described, Error> {
        check(name, &value)?;
        let _lock = self.lock()?;
        let (mut contents, key) = self.read_or_make()?;
        let before = contents.secrets.get(name);
        if before.is_none() && contents.secrets.len() >= SECRETS_MAX {
            return Err(Error::TooMany(SECRETS_MAX));
        }
        let version = before.map_or(1, |entry| entry.version + 1);
        let created = before.map_or(now_unix, |entry| entry.created);
        let data_key = seal::random_key()?;
        let about = about(name, version);
        let entry = Entry {
            version,
            created,
            changed: now_unix,
            key: STANDARD.encode(seal::seal(&key, &about, &data_key[..])?),
            value: STANDARD.encode(seal::seal(&data_key, &about, value.expose())?),
        };
        contents.secrets.insert(name.to_owned(), entry.clone());
        self.write(&contents)?;
        Ok(entry.describe(name.to_owned()))
    }

    /// Removes a secret and gives what it was.
    ///
    /// # Errors
    /// [`Error::NoSuchSecret`], or a file that cannot be written.
    pub fn remove(&self, name: &str) -> Result<Described, Error> {
        let _lock = self.lock()?;
        let missing = || Error::NoSuchSecret(name.to_owned());
        let mut contents = self.read()?.ok_or_else(missing)?;
        let entry = contents.secrets.remove(name).ok_or_else(missing)?;
        self.write(&contents)?;
        Ok(entry.describe(name.to_owned()))
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// [`Error::NoSuchSecret`]; a key that is gone, wrong or open to others; damage.
    pub fn reveal(&self, name: &str) -> Result<Secret, Error> {
        let missing = || Error::NoSuchSecret(name.to_owned());
        let contents = self.read()?.ok_or_else(missing)?;
        let entry = contents.secrets.get(name).ok_or_else(missing)?;
        let key = self.key()?.ok_or_else(|| self.key_gone())?;
        self.check_key(&contents, &key)?;
        let about = about(name, entry.version);
        let damaged = || self.damaged(format!("the secret {name:?} does not open"));
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| damaged());
        let data_key = seal::open(&key, &about, &decode(&entry.key)?).ok_or_else(damaged)?;
        let mut bytes = Key::default();
        if data_key.len() != KEY_BYTES {
            return Err(damaged());
        }
        bytes.copy_from_slice(&data_key);
        let mut value = seal::open(&bytes, &about, &decode(&entry.value)?).ok_or_else(damaged)?;
        Ok(Secret::new(std::mem::take(&mut *value)))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("vault.json")
    }

    /// One change at a time, of all processes.
    fn lock(&self) -> Result<File, Error> {
        let path = self.directory.join("vault.lock");
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&path);
        let lock = open.map_err(file("open", &path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| file("lock", &path)(errno.into()))?;
        Ok(lock)
    }

    fn read(&self) -> Result<Option<Contents>, Error> {
        let path = self.path();
        let bytes = match fs::metadata(&path).and_then(|it| Ok((it.len(), fs::read(&path)?))) {
            Ok((length, _)) if length > FILE_BYTES_MAX => {
                return Err(self.damaged(format!("it has {length} bytes, more than any vault")));
            }
            Ok((_, bytes)) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", &path)(error)),
        };
        let contents: Contents = serde_json::from_slice(&bytes)
            .map_err(|error| self.damaged(format!("it cannot be read: {error}")))?;
        if contents.format != FORMAT {
            let found = contents.format;
            return Err(self.damaged(format!(
                "its format is {found}, this program knows {FORMAT}"
            )));
        }
        Ok(Some(contents))
    }

    /// The vault and its key, both made when there is neither.
    fn read_or_make(&self) -> Result<(Contents, Key), Error> {
        let key = self.key()?;
        if let Some(contents) = self.read()? {
            let key = key.ok_or_else(|| self.key_gone())?;
            self.check_key(&contents, &key)?;
            return Ok((contents, key));
        }
        let key = match key {
            Some(key) => key,
            None => self.make_key()?,
        };
        let mark = STANDARD.encode(seal::seal(&key, KEY_MARK, KEY_MARK.as_bytes())?);
        let contents = Contents {
            format: FORMAT,
            mark,
            secrets: BTreeMap::new(),
        };
        Ok((contents, key))
    }

    /// To a file beside it, synced, then renamed, then the directory: after a crash it is the old one or the new one.
    fn write(&self, contents: &Contents) -> Result<(), Error> {
        let path = self.path();
        let beside = self.directory.join("vault.json.new");
        let text = serde_json::to_vec_pretty(contents).expect("texts and numbers");
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(FILE_MODE)
                .open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(file("write", &path))
    }

    /// The key; `None` when there is no file.
    fn key(&self) -> Result<Option<Key>, Error> {
        let path = &self.key_file;
        let opened = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(file("read", path))?,
        };
        // Of the file that is read, whatever has this name a moment later.
        let metadata = opened.metadata().map_err(file("read", path))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(Error::OpenKey {
                path: path.clone(),
                mode: metadata.mode() & 0o777,
            });
        }
        // Room for all of it from the start: growing would leave a copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX + 1));
        opened
            .take(KEY_FILE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut text)
            .map_err(file("read", path))?;
        let digits = text.trim_ascii();
        let bad = || Error::BadKey { path: path.clone() };
        let mut key = Key::default();
        if digits.len() != 2 * KEY_BYTES {
            return Err(bad());
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(bad);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).expect("two digits make a byte");
        }
        Ok(Some(key))
    }

    fn make_key(&self) -> Result<Key, Error> {
        let key = seal::random_key()?;
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        for byte in key.iter() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).expect("four bits are a digit"));
            }
        }
        text.push('\n');
        let path = &self.key_file;
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(KEY_MODE)
                .open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(file("write", path))?;
        Ok(key)
    }

    fn check_key(&self, contents: &Contents, key: &Key) -> Result<(), Error> {
        let mark = STANDARD.decode(&contents.mark).unwrap_or_default();
        match seal::open(key, KEY_MARK, &mark) {
            Some(_) => Ok(()),
            None => Err(Error::OtherKey {
                vault: self.path(),
                key: self.key_file.clone(),
            }),
        }
    }

    fn key_gone(&self) -> Error {
        Error::KeyGone {
            vault: self.path(),
            key: self.key_file.clone(),
        }
    }

    fn damaged(&self, detail: String) -> Error {
        Error::Damaged {
            path: self.path(),
            detail,
        }
    }
}

impl Entry {
    fn describe(&self, name: String) -> Described {
        Described {
            name,
            version: self.version,
            created: self.created,
            changed: self.changed,
        }
    }
}

fn check(name: &str, value: &Secret) -> Result<(), Error> {
    if !is_name(name) {
        return Err(Error::BadName(name.to_owned()));
    }
    if value.is_empty() || value.len() > VALUE_BYTES_MAX {
        return Err(Error::BadValue {
            found: value.len(),
            max: VALUE_BYTES_MAX,
        });
    }
    Ok(())
}

/// What a sealed text belongs to. A name has no space.
fn about(name: &str, version: u64) -> String {
    format!("alicia secret {name} {version}")
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File {
        operation,
        path,
        source,
    }
}
