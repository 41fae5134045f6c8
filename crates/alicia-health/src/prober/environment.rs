//! What a program of a check finds in its environment: what the service itself finds, as far as it can be known from here.

use std::collections::BTreeMap;
use std::path::Path;

use alicia_contract::fleet::ServiceSpec;
use alicia_file::env_file;
use alicia_file::fleet::default_port;
use alicia_module::Context;

use crate::core::Target;

/// `PATH` of a program that the file gives none (that of Debian's `login`).
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The variables, by name. The files of the service are read anew for each run: its check sees the new values.
///
/// # Errors
/// A file that cannot be read, in words.
pub(super) fn of(
    cx: &Context,
    target: &Target,
    spec: &ServiceSpec,
) -> Result<Vec<(String, String)>, String> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    variables.insert("PATH".to_owned(), PATH_DEFAULT.to_owned());
    for file in &spec.env_files {
        variables.extend(read(&cx.paths.base().join(file))?);
    }
    let written = spec.environment.iter();
    variables.extend(written.map(|(name, value)| (name.clone(), value.to_string())));
    variables.extend(told(cx, target));
    for (name, number) in &target.ports {
        let name = name.as_str().to_ascii_uppercase().replace('-', "_");
        variables.insert(format!("PORT_{name}"), number.to_string());
    }
    let main = default_port(spec).and_then(|(name, _)| target.ports.get(name).copied());
    if let Some(port) = main.or(target.port) {
        variables.insert("PORT".to_owned(), port.to_string());
    }
    Ok(variables.into_iter().collect())
}

fn read(path: &Path) -> Result<Vec<(String, String)>, String> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| format!("failed to read the variables of {shown}: {error}"))?;
    env_file::parse(&shown, &bytes).map_err(|faults| {
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        format!("failed to read the variables of {shown}: {first}")
    })
}

/// What Alicia tells an instance; the token is that of the run.
fn told(cx: &Context, target: &Target) -> Vec<(String, String)> {
    let service = target.service.to_string();
    let mut told = vec![
        ("ALICIA_SERVICE", service.clone()),
        ("ALICIA_SLOT", target.slot.to_string()),
        ("ALICIA_INSTANCE", target.instance.to_string()),
        ("ALICIA_EPOCH", target.epoch.to_string()),
        ("ALICIA_TOPIC_PREFIX", cx.prefix().to_string()),
    ];
    let (username, password) = match &cx.external_bus {
        None => (
            service,
            Some(cx.paths.credentials().join(target.instance.as_str())),
        ),
        Some(bus) => (
            bus.username.clone().unwrap_or_default(),
            bus.password_file.clone(),
        ),
    };
    if let Some(bus) = cx.addresses.bus().borrow().as_ref() {
        told.push(("ALICIA_MQTT_URL", bus.to_string()));
        told.push(("ALICIA_MQTT_USERNAME", username));
    }
    // A service that another house runs has no token here.
    if let Some(file) = password.filter(|file| file.exists()) {
        told.push(("ALICIA_TOKEN_FILE", file.display().to_string()));
    }
    if let Some(api) = *cx.addresses.api().borrow() {
        told.push(("ALICIA_API_URL", format!("http://{api}")));
    }
    told.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
