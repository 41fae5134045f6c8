//! Reading and checking the whole file: the platform's part, the services, and the section of each module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alicia_contract::fleet::Fleet;
use alicia_contract::identity::IdentitySettings;
use alicia_file::{Document, Fault, Schema, Sources};
use alicia_module::Spec;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::settings::{HttpSettings, ModuleSwitch, Settings};

/// A file without faults.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The platform's part.
    pub settings: Settings,
    /// What should run.
    pub fleet: Fleet,
    /// The directory of the file; relative paths start there.
    pub base: PathBuf,
    /// The file with its positions, for checks that come later; none in a running host.
    pub document: Option<Document>,
    sections: BTreeMap<String, Value>,
}

impl Loaded {
    /// The section of a module, as JSON; null when the file has none.
    #[must_use]
    pub fn section(&self, module: &str) -> Value {
        self.sections.get(module).cloned().unwrap_or_default()
    }

    /// The parts beside `services` that are not the same in the other: names of sections and of the platform's
    /// own settings.
    #[must_use]
    pub fn differing_sections(&self, other: &Self) -> Vec<String> {
        let parts = |loaded: &Self| {
            let mut settings = serde_json::to_value(&loaded.settings).unwrap_or_default();
            let mut parts = match settings.take() {
                Value::Object(parts) => parts,
                _ => Map::new(),
            };
            if !loaded.fleet.groups.is_empty() {
                parts.insert("groups".to_owned(), json!(loaded.fleet.groups));
            }
            parts.extend(loaded.sections.clone());
            parts
        };
        let (ours, theirs) = (parts(self), parts(other));
        let names = ours.keys().chain(theirs.keys());
        let names: std::collections::BTreeSet<&String> = names.collect();
        names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name))
            .cloned()
            .collect()
    }

    /// As a running host keeps it: without the positions, and with each service that is as in this fleet held once,
    /// together with it. A thousand services are several megabytes.
    #[must_use]
    pub(crate) fn kept_beside(mut self, fleet: &Fleet) -> Arc<Self> {
        self.document = None;
        self.fleet.share_with(fleet);
        Arc::new(self)
    }

    /// Sets one value of a module's section, over what the file says.
    pub fn set(&mut self, module: &str, name: &str, value: Value) {
        let section = self
            .sections
            .entry(module.to_owned())
            .or_insert_with(|| json!({}));
        section[name] = value;
    }
}

/// The JSON Schema of the file, with the sections of these modules.
#[must_use]
pub fn schema(modules: &[Spec]) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = Settings::json_schema(&mut generator).to_value();
    let switch = generator.subschema_for::<ModuleSwitch>().to_value();
    let switches: Map<String, Value> = modules
        .iter()
        .map(|module| (module.name.to_owned(), switch.clone()))
        .collect();
    schema["properties"]["modules"] = json!({
        "type": "object",
        "description": "Switches of modules by name.",
        "properties": switches,
        "additionalProperties": false,
    });
    for module in modules {
        let section = (module.config_schema)(&mut generator).to_value();
        schema["properties"][module.name] = section;
    }
    schema["additionalProperties"] = json!(false);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("alicia.yaml");
    schema["description"] = json!(
        "What runs in one house: its services, and how the parts that look after them are set."
    );
    schema["$defs"] = Value::Object(generator.take_definitions(true));
    schema
}

/// Reads and checks the file. `base` is its directory.
///
/// # Errors
/// Every fault that is found, in the order of the file.
pub fn load(sources: Sources, base: &Path, modules: &[Spec]) -> Result<Loaded, Vec<Fault>> {
    let document = Document::parse(sources)?;
    let schema = Schema::compile(schema(modules)).expect("our own schema is a schema");
    let all = |faults| with_others(faults, &document, modules);
    refuse_any(all(document.check(&schema)))?;
    let mut settings: Settings = document
        .get("")
        .map_err(|fault| alicia_file::in_order(all(vec![fault])))?
        .unwrap_or_default();
    let name = base
        .file_name()
        .map_or_else(|| "fleet".into(), |name| name.to_string_lossy());
    let fleet = settings.take_fleet(&name);
    let sections = sections(&document, modules);
    let mut faults = alicia_file::fleet::check(&fleet, Some(&document));
    faults.extend(faults_of_identity(&settings.identity, &document));
    faults.extend(foreign_address(&settings.http, &document));
    for module in modules {
        faults.extend(faults_of_section(module, &sections, &fleet, &document));
    }
    refuse_any(faults)?;
    Ok(Loaded {
        settings,
        fleet,
        base: base.to_owned(),
        document: Some(document),
        sections,
    })
}

/// These faults of the shape of the file, with what is wrong elsewhere. A section that does not fit hides nothing: the
/// platform's own sections and those of modules that fit are looked at all the same, and the services, on which modules
/// look too.
fn with_others(mut faults: Vec<Fault>, document: &Document, modules: &[Spec]) -> Vec<Fault> {
    let fits = |section: &str| {
        let is_inside = |fault: &Fault| {
            let inside = fault
                .pointer
                .strip_prefix('/')
                .and_then(|path| path.strip_prefix(section));
            inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !faults.iter().any(is_inside)
    };
    if faults.is_empty() {
        return faults;
    }
    let mut others = Vec::new();
    if fits("identity") {
        match document.get::<IdentitySettings>("/identity") {
            Ok(identity) => {
                others.extend(faults_of_identity(&identity.unwrap_or_default(), document))
            }
            Err(fault) => others.push(fault),
        }
    }
    if fits("http") {
        match document.get::<HttpSettings>("/http") {
            Ok(http) => others.extend(foreign_address(&http.unwrap_or_default(), document)),
            Err(fault) => others.push(fault),
        }
    }
    if ["name", "services", "groups"].into_iter().all(fits)
        && let Ok(fleet) = alicia_file::fleet::read(document)
    {
        others.extend(alicia_file::fleet::check(&fleet, Some(document)));
        let sections = sections(document, modules);
        for module in modules.iter().filter(|module| fits(module.name)) {
            others.extend(faults_of_section(module, &sections, &fleet, document));
        }
    }
    faults.extend(others);
    faults
}

/// What the types cannot check of the settings of identities.
fn faults_of_identity<'d>(
    identity: &IdentitySettings,
    document: &'d Document,
) -> impl Iterator<Item = Fault> + use<'d> {
    let faults = identity.faults().into_iter();
    faults.map(move |(pointer, text)| document.fault_at(&format!("/identity{pointer}"), text))
}

/// What a module finds wrong with its section.
fn faults_of_section<'d>(
    module: &Spec,
    sections: &BTreeMap<String, Value>,
    fleet: &Fleet,
    document: &'d Document,
) -> impl Iterator<Item = Fault> + use<'d> {
    let section = sections.get(module.name).cloned().unwrap_or_default();
    let name = module.name;
    let faults = (module.validate)(section, fleet).into_iter();
    faults.map(move |fault| document.fault_at(&format!("/{name}{}", fault.pointer), fault.message))
}

/// The sections of modules that are in the file, by name.
fn sections(document: &Document, modules: &[Spec]) -> BTreeMap<String, Value> {
    let whole = document.to_json();
    modules
        .iter()
        .filter_map(|module| Some((module.name.to_owned(), whole.get(module.name)?.clone())))
        .collect()
}

/// Without TLS only addresses of this machine are listened on.
fn foreign_address(http: &HttpSettings, document: &Document) -> Option<Fault> {
    let listen = http.listen;
    (!listen.ip().is_loopback()).then(|| {
        let message = format!(
            "found {listen}, expected an address of this machine (127.0.0.0/8, [::1]), as there is no TLS yet"
        );
        document
            .fault_at("/http/listen", message)
            .with_hint("write `127.0.0.1:4000`; others reach it through a proxy with TLS".to_owned())
    })
}

fn refuse_any(faults: Vec<Fault>) -> Result<(), Vec<Fault>> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(alicia_file::in_order(faults))
    }
}

#[cfg(test)]
mod tests {
    use alicia_contract::ServiceName;

    use super::*;

    fn read(text: &str) -> Loaded {
        load(
            Sources::new().file("alicia.yaml", text),
            Path::new("/"),
            &[],
        )
        .expect("is good")
    }

    #[test]
    fn what_a_host_keeps_holds_an_unchanged_service_once() {
        let text = "services: {same: {command: sleep 1}, other: {command: sleep 1}}";
        let before = read(text).kept_beside(&Fleet::default());
        let changed = "services: {same: {command: sleep 1}, other: {command: sleep 2}}";
        let after = read(changed).kept_beside(&before.fleet);
        let is_shared = |name: &str| {
            let name = ServiceName::new(name).expect("a name");
            Arc::ptr_eq(&before.fleet.services[&name], &after.fleet.services[&name])
        };
        assert!(is_shared("same"));
        assert!(!is_shared("other"));
        assert!(after.document.is_none());
    }

    fn faulty(text: &str) -> Vec<String> {
        let sources = Sources::new().file("alicia.yaml", text);
        let faults = load(sources, Path::new("/"), &[]).expect_err("is faulty");
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_section_that_does_not_fit_hides_no_other() {
        let others = "http: {listen: '0.0.0.0:80'}\nidentity: {credential_ttl: 1s}\n\
                      services: {a: {command: sleep 9, depends_on: [b]}}\n";
        let found = [
            "/http/listen",
            "/identity/credential_ttl",
            "/services/a/depends_on/0",
        ];
        assert_eq!(faulty(others), found);
        let with_bus = faulty(&format!("bus: 5\n{others}"));
        assert_eq!(with_bus[0], "/bus");
        assert_eq!(with_bus[1..], found);
        // Nor does one that fits the schema, and not its type; and it is told once.
        let with_text = others.replace("0.0.0.0:80", "here");
        assert_eq!(faulty(&with_text), found);
        let with_text = faulty(&format!("bus: 5\n{with_text}"));
        assert_eq!(with_text[1..], found);
        // Services that do not fit hide neither.
        let without = others.replace("[b]", "7");
        assert_eq!(faulty(&without)[..2], found[..2]);
    }
}
