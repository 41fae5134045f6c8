//! Runs and agents from the outside: keys, credentials, fences, joining, rotation.

use std::path::Path;

use alicia_contract::fleet::{Fleet, ServiceSpec};
use alicia_contract::id::{Epoch, InstanceId, ServiceName};
use alicia_contract::identity::{
    DIRECTORY_TYPE, Grant, IdentityFile, JoinRequest, KeyDirectory, NewJoinToken, RenewRequest,
    RenewalProof, join_text, renewal_text,
};
use alicia_contract::platform::{NewKey, Scope};
use alicia_contract::topic::Prefix;
use alicia_identity::{Authority, Beginning, Error, Identity, Refusal};
use alicia_signature::{PublicKey, SigningKey, jws};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const NOW: f64 = 1_800_000_000.0;

struct House {
    directory: tempfile::TempDir,
    authority: Authority,
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("id")
}

fn open(directory: &Path) -> Authority {
    let authority = Authority::open(directory, Prefix::default()).expect("opens");
    let service = |text: &str| (name(text), ServiceSpec::new(vec!["true".into()]).into());
    authority.set_fleet(&Fleet {
        name: "test".into(),
        services: ["api", "db"].map(service).into(),
        ..Fleet::default()
    });
    authority
}

fn house() -> House {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = open(directory.path());
    House {
        directory,
        authority,
    }
}

fn begin(authority: &Authority, n: u64) -> IdentityFile {
    let run = Beginning {
        service: &name("api"),
        slot: 0,
        instance: &InstanceId::from_parts(n, 1),
        epoch: Epoch(n),
        socket: Path::new("/run/x"),
        logs_in: true,
    };
    authority.begin_run(run, NOW).expect("begins")
}

fn prove(file: &IdentityFile, nonce: &str) -> RenewalProof {
    let key = SigningKey::from_text(&file.key).expect("a seed");
    let text = renewal_text(
        nonce,
        file.service.as_str(),
        file.instance.as_str(),
        file.epoch.0,
    );
    RenewalProof {
        service: file.service.clone(),
        instance: file.instance.clone(),
        epoch: file.epoch,
        proof: URL_SAFE_NO_PAD.encode(key.sign(&text)),
    }
}

fn renew(authority: &Authority, file: &IdentityFile) -> Result<String, Error> {
    let nonce = authority.nonce(NOW).expect("random");
    let renewed = authority.renew_run(&prove(file, &nonce), &nonce, NOW)?;
    Ok(renewed.credential)
}

#[test]
fn a_run_renews_with_its_key_and_logs_in_under_its_own_client_id() {
    let house = house();
    let file = begin(&house.authority, 1);
    assert_eq!(file.id, "spiffe://alicia.local/agent/api");
    let credential = renew(&house.authority, &file).expect("granted");
    let own = format!("api-{}", file.instance);
    let login = |user: &str, client: &str, now: f64| {
        let found = house
            .authority
            .authenticate_client(user, &credential, client, now);
        found.map(|identity| identity.to_string())
    };
    assert_eq!(login("api", &own, NOW), Ok("api".to_owned()));
    assert_eq!(login("api", &format!("{own}-2"), NOW), Ok("api".to_owned()));
    for stolen in ["", "api", "api-other", &format!("{own}x"), &own[1..]] {
        let refused = login("api", stolen, NOW);
        assert!(
            matches!(refused, Err(Refusal::OtherClient { .. })),
            "{stolen}"
        );
    }
    assert!(matches!(login("db", &own, NOW), Err(Refusal::OtherUser(_))));
    assert_eq!(
        login("api", &own, NOW + 3_600.0),
        Err(Refusal::BadCredentials)
    );
}

#[test]
fn a_proof_is_good_for_its_nonce_key_and_run_and_once() {
    let house = house();
    let (authority, file) = (&house.authority, begin(&house.authority, 1));
    let nonce = authority.nonce(NOW).expect("random");
    let proof = prove(&file, &nonce);
    assert!(authority.renew_run(&proof, &nonce, NOW).is_ok());
    let refused = |proof: &RenewalProof, nonce: &str, now: f64| {
        authority.renew_run(proof, nonce, now).expect_err("refused")
    };
    assert!(
        matches!(refused(&proof, &nonce, NOW), Error::BadProof),
        "the nonce was used"
    );
    let nonce = authority.nonce(NOW).expect("random");
    let late = prove(&file, &nonce);
    assert!(matches!(
        refused(&late, &nonce, NOW + 61.0),
        Error::BadProof
    ));
    let mut thief = file.clone();
    thief.key = SigningKey::generate().expect("random").reveal();
    let wrong = prove(&thief, &nonce);
    assert!(matches!(refused(&wrong, &nonce, NOW), Error::BadProof));
    let mut other = prove(&file, "aln_made.up");
    assert!(matches!(
        refused(&other, "aln_made.up", NOW),
        Error::BadProof
    ));
    other.epoch = Epoch(9);
    assert!(matches!(refused(&other, &nonce, NOW), Error::MayNotAct(_)));
}

#[test]
fn whoever_proves_nothing_uses_no_nonce_up() {
    let house = house();
    let (authority, file) = (&house.authority, begin(&house.authority, 1));
    let mut thief = file.clone();
    thief.key = SigningKey::generate().expect("random").reveal();
    // More than were once remembered for all.
    for _ in 0..10_001 {
        let refused = renew(authority, &thief);
        assert!(matches!(refused, Err(Error::BadProof)));
    }
    assert!(renew(authority, &file).is_ok());
}

#[test]
fn a_new_epoch_cuts_the_old_one_off_everywhere() {
    let house = house();
    let authority = &house.authority;
    let old = begin(authority, 1);
    let (credential, kid) = (
        renew(authority, &old).expect("granted"),
        SigningKey::from_text(&old.key)
            .expect("a seed")
            .public()
            .thumbprint(),
    );
    let identity = authority.authenticate(&credential, NOW).expect("is good");
    let token = authority.issue_token(&identity);
    assert!(authority.known_key(&kid).is_some());
    let new = begin(authority, 2);
    assert!(matches!(
        authority.may_act(&identity),
        Err(Refusal::StaleEpoch { .. })
    ));
    for secret in [&credential, &token] {
        let refused = authority.authenticate(secret, NOW);
        assert!(matches!(refused, Err(Refusal::StaleEpoch { .. })));
    }
    assert!(matches!(renew(authority, &old), Err(Error::MayNotAct(_))));
    assert_eq!(authority.known_key(&kid), None);
    // Also for a host that starts now.
    let again = open(house.directory.path());
    assert!(matches!(
        again.authenticate(&credential, NOW),
        Err(Refusal::StaleEpoch { .. })
    ));
    let fresh = renew(&again, &new).expect("granted");
    assert!(again.authenticate(&fresh, NOW).is_ok());
    again.end_run(&new.instance);
    assert!(again.authenticate(&fresh, NOW).is_err(), "it has ended");
}

#[test]
fn runs_that_ended_while_no_host_looked_are_over() {
    let house = house();
    let file = begin(&house.authority, 1);
    let credential = renew(&house.authority, &file).expect("granted");
    let module = house
        .authority
        .module_signer("health", NOW)
        .expect("random");
    let again = open(house.directory.path());
    again.end_other_runs(|instance| instance == file.instance.as_str());
    assert!(again.authenticate(&credential, NOW).is_ok(), "it is there");
    again.end_other_runs(|_| false);
    assert!(again.authenticate(&credential, NOW).is_err());
    assert!(
        again.known_key(module.kid()).is_some(),
        "modules are no matter of the keeper"
    );
}

#[test]
fn a_credential_survives_the_host() {
    let house = house();
    let file = begin(&house.authority, 1);
    let credential = renew(&house.authority, &file).expect("granted");
    let again = open(house.directory.path());
    assert!(again.authenticate(&credential, NOW).is_ok());
    assert!(renew(&again, &file).is_ok());
}

fn join(authority: &Authority, token: &str, key: &SigningKey) -> Result<(Identity, String), Error> {
    let x = key.public().to_string();
    let request = JoinRequest {
        token: token.to_owned(),
        proof: URL_SAFE_NO_PAD.encode(key.sign(&join_text(token, &x))),
        key: x,
    };
    let admitted = authority.join(&request, NOW)?;
    Ok((admitted.identity, admitted.renewed.credential))
}

fn token(authority: &Authority, scopes: &[&str]) -> String {
    let new = NewJoinToken {
        name: name("robot"),
        ttl_s: 600,
        scopes: scopes
            .iter()
            .map(|text| text.parse().expect("a scope"))
            .collect(),
    };
    authority.create_join_token(&new, NOW).expect("made").0
}

#[test]
fn an_agent_joins_once_per_token_with_its_own_key() {
    let house = house();
    let authority = &house.authority;
    let key = SigningKey::generate().expect("random");
    let text = token(authority, &["health:ack", "read"]);
    let forged = JoinRequest {
        token: text.clone(),
        key: key.public().to_string(),
        proof: URL_SAFE_NO_PAD.encode([0_u8; 64]),
    };
    assert!(matches!(authority.join(&forged, NOW), Err(Error::BadProof)));
    let (identity, credential) = join(authority, &text, &key).expect("joins");
    assert!(identity.may("health", "ack") && identity.has_scope(Scope::Read));
    assert!(!identity.has_scope(Scope::Operate));
    assert_eq!(
        authority.authenticate(&credential, NOW),
        Ok(identity.clone())
    );
    assert!(matches!(
        join(authority, &text, &key),
        Err(Error::BadJoinToken)
    ));
    assert!(
        authority
            .permissions(&identity)
            .may_publish("alicia/system/health/robot", false)
    );
    assert!(
        !authority
            .permissions(&identity)
            .may_publish("alicia/api/command", false)
    );
    let taken = NewJoinToken {
        name: name("api"),
        ttl_s: 600,
        scopes: Vec::new(),
    };
    assert!(matches!(
        authority.create_join_token(&taken, NOW),
        Err(Error::NameTaken(_))
    ));
}

#[test]
fn an_agent_renews_until_it_is_revoked_or_joins_again() {
    let house = house();
    let authority = &house.authority;
    let key = SigningKey::generate().expect("random");
    let (identity, credential) = join(authority, &token(authority, &[]), &key).expect("joins");
    let renew = |identity: &Identity, now: f64| {
        let (name, instance, epoch) = identity.run().expect("has a run");
        let nonce = authority.nonce(now).expect("random");
        let text = renewal_text(&nonce, name.as_str(), instance.as_str(), epoch.0);
        let request = RenewRequest {
            name: name.clone(),
            instance: instance.clone(),
            epoch,
            nonce,
            proof: URL_SAFE_NO_PAD.encode(key.sign(&text)),
        };
        authority.renew_agent(&request, now)
    };
    assert_eq!(authority.may_stay(&identity, NOW + 3_599.0), Ok(()));
    assert!(matches!(
        authority.may_stay(&identity, NOW + 3_600.0),
        Err(Refusal::Expired(_))
    ));
    let renewed = renew(&identity, NOW + 1_800.0).expect("granted");
    assert_eq!(renewed.expires, NOW + 5_400.0);
    assert_eq!(authority.may_stay(&identity, NOW + 5_399.0), Ok(()));
    let (again, _) = join(authority, &token(authority, &[]), &key).expect("joins again");
    assert!(matches!(renew(&identity, NOW), Err(Error::MayNotAct(_))));
    assert!(
        authority.authenticate(&credential, NOW).is_err(),
        "the older epoch"
    );
    authority.revoke_agent(&name("robot")).expect("is there");
    assert!(matches!(renew(&again, NOW), Err(Error::MayNotAct(_))));
    assert!(authority.may_act(&again).is_err());
    assert!(matches!(
        authority.revoke_agent(&name("robot")),
        Err(Error::NoSuchAgent(_))
    ));
}

#[test]
fn an_agent_whose_name_becomes_that_of_a_service_may_do_nothing() {
    let house = house();
    let authority = &house.authority;
    let key = SigningKey::generate().expect("random");
    let (identity, credential) = join(authority, &token(authority, &[]), &key).expect("joins");
    let kid = key.public().thumbprint();
    assert!(authority.known_key(&kid).is_some());
    let services = ["robot"].map(|text| (name(text), ServiceSpec::new(vec!["true".into()]).into()));
    authority.set_fleet(&Fleet {
        name: "test".into(),
        services: services.into(),
        ..Fleet::default()
    });
    assert!(authority.may_act(&identity).is_err());
    assert!(authority.authenticate(&credential, NOW).is_err());
    assert_eq!(authority.known_key(&kid), None, "it signs for nobody");
    let listed = authority.directory(NOW).keys;
    assert!(listed.iter().all(|key| key.source != "robot"), "{listed:?}");
}

fn read_directory(authority: &Authority, roots: &[String]) -> Option<KeyDirectory> {
    let (signed, _) = authority.signed_directory(NOW);
    let signature = |one: &alicia_contract::identity::DocumentSignature| jws::DocumentSignature {
        protected: one.protected.clone(),
        signature: one.signature.clone(),
    };
    let document = jws::Document {
        payload: signed.payload.clone(),
        signatures: signed.signatures.iter().map(signature).collect(),
    };
    let keys: Vec<_> = roots
        .iter()
        .filter_map(|x| PublicKey::from_text(x).ok())
        .collect();
    let content = jws::open_document(&document, DIRECTORY_TYPE, &keys)?;
    serde_json::from_slice(&content).ok()
}

#[test]
fn the_directory_lists_who_may_act_and_rises() {
    let house = house();
    let authority = &house.authority;
    let file = begin(authority, 1);
    let before = read_directory(authority, &file.roots).expect("signed by the root");
    assert_eq!(before.keys.len(), 1);
    assert_eq!(
        (before.keys[0].source.as_str(), before.keys[0].epoch),
        ("api", Epoch(1))
    );
    let module = authority.module_signer("health", NOW).expect("random");
    assert!(
        authority
            .known_key(module.kid())
            .is_some_and(|key| key.source == "system/health")
    );
    begin(authority, 2);
    let after = read_directory(authority, &file.roots).expect("signed by the root");
    assert!(after.version > before.version);
    let epochs: Vec<_> = after
        .keys
        .iter()
        .filter(|key| key.source == "api")
        .collect();
    assert_eq!(epochs.len(), 1, "only the newest");
    assert_eq!(read_directory(authority, &[]), None);
}

#[test]
fn a_host_whose_clock_was_set_back_is_not_taken_for_an_older_one() {
    let house = house();
    house.authority.started(NOW);
    begin(&house.authority, 1);
    let (_, last) = house.authority.signed_directory(NOW);
    house.authority.note_published(last).expect("written");
    let again = open(house.directory.path());
    again.started(NOW - 86_400.0);
    let (_, first) = again.signed_directory(NOW - 86_400.0);
    assert!(first > last, "{first} after {last}");
}

#[test]
fn a_rotation_leaves_everybody_where_they_are_for_a_while() {
    let house = house();
    let authority = &house.authority;
    let file = begin(authority, 1);
    let credential = renew(authority, &file).expect("granted");
    let identity = authority.authenticate(&credential, NOW).expect("is good");
    let (token, credentials) = (
        authority.issue_token(&identity),
        house.directory.path().join("c"),
    );
    std::fs::create_dir(&credentials).expect("made");
    let path = credentials.join(file.instance.as_str());
    std::fs::write(&path, &token).expect("written");
    let rotated = authority.rotate_roots(&credentials, NOW).expect("rotates");
    assert_ne!(rotated.kid, rotated.previous);
    for secret in [&credential, &token] {
        assert!(authority.authenticate(secret, NOW).is_ok(), "both are good");
    }
    let fresh = std::fs::read_to_string(&path).expect("there");
    assert_ne!(fresh, token);
    // Who knows the old root only can still read the directory, and learns the new one from it.
    let directory = read_directory(authority, &file.roots).expect("signed by the old root too");
    assert_eq!(directory.roots.len(), 2);
    let later = rotated.overlap_until;
    assert!(
        authority.authenticate(&token, later).is_err(),
        "the overlap is over"
    );
    assert!(authority.authenticate(&fresh, later).is_ok());
}

#[test]
fn a_key_is_either_on_the_ladder_or_limited_and_its_use_is_seen() {
    let house = house();
    let new = |scope: Option<Scope>, scopes: &[&str]| NewKey {
        name: name("ci"),
        scope,
        scopes: scopes
            .iter()
            .map(|text| text.parse::<Grant>().expect("a scope"))
            .collect(),
        expires_days: None,
    };
    for wrong in [new(None, &[]), new(Some(Scope::Read), &["health:ack"])] {
        assert!(matches!(
            house.authority.create_key(&wrong, NOW),
            Err(Error::Scopes(_))
        ));
    }
    let limited = new(None, &["health:ack"]);
    let (key, info) = house.authority.create_key(&limited, NOW).expect("made");
    assert_eq!((info.scope, info.last_used), (None, None));
    let identity = house
        .authority
        .authenticate(key.reveal(), NOW + 7.0)
        .expect("is good");
    assert!(identity.may("health", "ack") && !identity.has_scope(Scope::Read));
    house.authority.keep_last_used().expect("written");
    let again = open(house.directory.path());
    let used = again.keys().into_iter().find(|key| key.name == "ci");
    assert_eq!(used.and_then(|key| key.last_used), Some(NOW + 7.0));
}

fn ci_key(authority: &Authority, scope: Scope) -> String {
    let new = NewKey {
        name: name("ci"),
        scope: Some(scope),
        scopes: Vec::new(),
        expires_days: None,
    };
    let (key, _) = authority.create_key(&new, NOW).expect("made");
    key.reveal().to_owned()
}

#[test]
fn what_a_revoked_key_has_begun_does_not_go_over_to_one_of_the_same_name() {
    let house = house();
    let authority = &house.authority;
    let leaked = ci_key(authority, Scope::Read);
    let session = authority.start_session(&leaked, NOW).expect("is good");
    let link = authority.create_link("ci", NOW).expect("random");
    let identity = authority.session(&session, NOW).expect("is on");
    let held = authority.key_of(&identity, NOW);
    assert_eq!(held, authority.key_shown(&leaked, NOW));
    authority.revoke_key("ci", NOW).expect("revoked");
    assert_eq!(authority.key_of(&identity, NOW), None);
    ci_key(authority, Scope::Admin);
    assert_eq!(
        authority.session(&session, NOW),
        None,
        "that of the leaked key"
    );
    assert_eq!(authority.redeem_link(&link, NOW), None, "nor its link");
    assert_ne!(authority.key_of(&identity, NOW), held);
    assert_eq!(authority.key_shown(&leaked, NOW), None);
    assert!(matches!(
        authority.create_link("nobody", NOW),
        Err(Error::NoSuchKey(_))
    ));
}

#[test]
fn another_process_on_the_directory_follows_keys_agents_and_roots() {
    let house = house();
    let (host, broker) = (&house.authority, open(house.directory.path()));
    broker.refresh();
    let key = ci_key(host, Scope::Read);
    let joined = SigningKey::generate().expect("random");
    let (_, credential) = join(host, &token(host, &[]), &joined).expect("joins");
    assert!(
        broker.authenticate(&key, NOW).is_err(),
        "it has not looked yet"
    );
    let changes = broker.changes();
    broker.refresh();
    assert!(changes.has_changed().expect("is there"));
    assert!(broker.authenticate(&key, NOW).is_ok());
    assert!(broker.authenticate(&credential, NOW).is_ok());
    host.revoke_key("ci", NOW).expect("revoked");
    host.revoke_agent(&name("robot")).expect("is there");
    host.rotate_roots(Path::new("/nowhere"), NOW)
        .expect("rotates");
    let file = begin(host, 1);
    let fresh = renew(host, &file).expect("granted");
    broker.refresh();
    assert!(broker.authenticate(&key, NOW).is_err(), "it was revoked");
    assert!(broker.authenticate(&credential, NOW).is_err(), "so was it");
    assert!(broker.authenticate(&fresh, NOW).is_ok(), "of the new root");
    let changes = broker.changes();
    broker.refresh();
    assert!(!changes.has_changed().expect("is there"), "nothing is new");
}
