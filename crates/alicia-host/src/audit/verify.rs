//! Walks along all chains and compares them with all checkpoints, of a host that runs or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use alicia_contract::audit::{AuditChain, AuditFault, AuditVerdict};
use alicia_signature::key::PublicKey;
use alicia_store::audit::chain::{self, Expected, Hash};
use alicia_store::audit::open_to_read;

use super::checkpoint::{Line, read_line};
use super::databases;

/// Faults of checkpoints that are told.
const FAULTS_MAX: usize = 100;

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places<'p> {
    /// The directory of the databases.
    pub databases: &'p Path,
    /// The file of checkpoints.
    pub checkpoints: &'p Path,
    /// The key that signs them; none: their signatures are faults.
    pub key: Option<PublicKey>,
}

/// What the checkpoints say.
#[derive(Default)]
struct Witnessed {
    by_module: BTreeMap<String, Vec<Expected>>,
    count: u64,
    last_at: Option<f64>,
    faults: Vec<AuditFault>,
}

/// Looks at everything.
///
/// # Errors
/// A directory that cannot be read. Databases and checkpoints that cannot be read are faults in the verdict.
pub fn verify(places: &Places<'_>) -> io::Result<AuditVerdict> {
    let mut witnessed = read_checkpoints(places);
    let mut chains = Vec::new();
    for (module, path) in databases(places.databases)? {
        let expected = witnessed.by_module.remove(&module).unwrap_or_default();
        chains.push(verify_chain(module, &path, &expected));
    }
    for (module, expected) in std::mem::take(&mut witnessed.by_module) {
        let what = format!(
            "the database is gone; checkpoints saw {} of its rows",
            expected.len()
        );
        chains.push(AuditChain {
            module,
            rows: 0,
            witnesses: expected.len(),
            faults: vec![AuditFault { at: 0, what }],
        });
    }
    let ok = witnessed.faults.is_empty() && chains.iter().all(|chain| chain.faults.is_empty());
    Ok(AuditVerdict {
        ok,
        chains,
        checkpoints_file: places.checkpoints.display().to_string(),
        checkpoints: witnessed.count,
        last_checkpoint: witnessed.last_at,
        checkpoint_faults: witnessed.faults,
    })
}

fn verify_chain(module: String, path: &Path, expected: &[Expected]) -> AuditChain {
    let witnesses = expected.len();
    let walked = open_to_read(path).and_then(|connection| chain::verify(&connection, expected));
    match walked {
        Ok(report) => AuditChain {
            module,
            rows: report.head.rows,
            witnesses,
            faults: report
                .faults
                .into_iter()
                .map(|fault| AuditFault {
                    at: fault.id,
                    what: fault.what,
                })
                .collect(),
        },
        Err(error) => AuditChain {
            module,
            rows: 0,
            witnesses,
            faults: vec![AuditFault {
                at: 0,
                what: format!(
                    "it cannot be read: {}",
                    alicia_module::api::error::chain(&error)
                ),
            }],
        },
    }
}

fn read_checkpoints(places: &Places<'_>) -> Witnessed {
    let mut witnessed = Witnessed::default();
    let file = match File::open(places.checkpoints) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "there is no file of checkpoints: a host writes one within a minute";
            witnessed.fault(0, what.to_owned());
            return witnessed;
        }
        Err(error) => {
            witnessed.fault(
                0,
                format!("the file of checkpoints cannot be read: {error}"),
            );
            return witnessed;
        }
    };
    let Some(key) = &places.key else {
        witnessed.fault(0, "there is no public key to check them with".to_owned());
        return witnessed;
    };
    let mut before: Option<Line> = None;
    let mut seen = BTreeSet::new();
    for (at, line) in (1..).zip(BufReader::new(file).lines()) {
        let read = line
            .map_err(|error| error.to_string())
            .and_then(|line| read_line(&line, key));
        match read {
            Ok(line) => {
                witnessed.check_order(at, &line, before.as_ref());
                witnessed.take(&line, &mut seen);
                before = Some(line);
            }
            Err(what) => witnessed.fault(at, format!("line {at}: {what}")),
        }
    }
    for expected in witnessed.by_module.values_mut() {
        expected.sort_by_key(|expected| expected.id);
    }
    witnessed
}

impl Witnessed {
    fn check_order(&mut self, at: i64, line: &Line, before: Option<&Line>) {
        let (number, hash) =
            before.map_or((0, ""), |line| (line.checkpoint.number, line.hash.as_str()));
        if line.checkpoint.number != number + 1 || line.checkpoint.before != hash {
            let found = line.checkpoint.number;
            self.fault(at, format!("line {at}: checkpoint {found} does not follow checkpoint {number}: lines are missing"));
        }
    }

    fn take(&mut self, line: &Line, seen: &mut BTreeSet<(String, i64, String)>) {
        self.count += 1;
        self.last_at = Some(line.checkpoint.at);
        for (module, head) in &line.checkpoint.heads {
            let is_new = seen.insert((module.clone(), head.id, head.hash.clone()));
            let Some(hash) = from_hex(&head.hash).filter(|_| head.id > 0 && is_new) else {
                continue;
            };
            self.by_module
                .entry(module.clone())
                .or_default()
                .push(Expected {
                    id: head.id,
                    hash,
                    witness: format!("checkpoint {}", line.checkpoint.number),
                });
        }
    }

    fn fault(&mut self, at: i64, what: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(AuditFault { at, what });
        }
    }
}

fn from_hex(text: &str) -> Option<Hash> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] * 16 + pair[1])
        .collect();
    bytes.try_into().ok()
}
