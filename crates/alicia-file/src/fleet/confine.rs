//! Limits, sandbox and notify socket: what can be kept, and what makes sense together.

use alicia_contract::fleet::{MEMORY_LIMIT_MIN, Network};

use super::Service;

pub(super) fn check(service: &mut Service<'_, '_>) {
    check_limits(service);
    check_sandbox(service);
    let notify = service.spec.notify;
    if let Some(watchdog) = notify.watchdog {
        if watchdog.duration().is_zero() {
            let message = "`watchdog` is 0s, which nobody can feed";
            service.fault("notify/watchdog", message, "write for example `10s`");
        }
        if !notify.enabled {
            let message = "a watchdog needs the notify socket, which is switched off";
            service.fault("notify", message, "remove `enabled: false`");
        }
    }
}

fn check_limits(service: &mut Service<'_, '_>) {
    let limits = &service.spec.limits;
    if let Some(memory) = limits.memory.filter(|memory| *memory < MEMORY_LIMIT_MIN) {
        let message = format!("found {memory}, expected {MEMORY_LIMIT_MIN} or more");
        service.fault("limits/memory", message, "write for example `512MiB`");
    }
}

fn check_sandbox(service: &mut Service<'_, '_>) {
    let Some(sandbox) = &service.spec.sandbox else {
        return;
    };
    if !sandbox.no_new_privileges {
        let message = "the kernel wants `no_new_privileges` for all the rest of a sandbox";
        let hint = "remove it, or the whole `sandbox`";
        service.fault("sandbox/no_new_privileges", message, hint);
    }
    if sandbox.strict && sandbox.read_only.is_none() {
        let message = "nothing can be read, and so no program starts";
        let hint =
            "list what it needs: `read_only: [/usr, /lib, /lib64, /etc]`, or remove `strict`";
        service.fault("sandbox/strict", message, hint);
    }
    for (number, name) in sandbox.capabilities.iter().enumerate() {
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        if !is_name(name) || name.starts_with("cap_") {
            let message =
                format!("found `{name}`, expected a capability without `CAP_`, in lower case");
            let part = format!("sandbox/capabilities/{number}");
            service.fault(&part, message, "write for example `net_bind_service`");
        }
    }
    if let Network::Ports(ports) = &sandbox.network {
        let lists = [("connect", &ports.connect), ("bind", &ports.bind)];
        for (list, number) in lists
            .into_iter()
            .flat_map(|(list, ports)| (0..ports.len()).map(move |number| (list, number, ports)))
            .filter_map(|(list, number, ports)| (ports[number] == 0).then_some((list, number)))
        {
            let part = format!("sandbox/network/{list}/{number}");
            service.fault(
                &part,
                "found 0, expected 1 to 65535",
                "write the port's number",
            );
        }
    }
    if sandbox
        .read_only
        .iter()
        .chain(&sandbox.writable)
        .flatten()
        .chain(&sandbox.hidden)
        .any(String::is_empty)
    {
        let message = "a path is empty";
        service.fault(
            "sandbox",
            message,
            "write a path, absolute or from the file's directory",
        );
    }
}

#[cfg(test)]
mod tests {
    use alicia_contract::ServiceName;
    use alicia_contract::fleet::{Fleet, ServiceSpec};
    use serde_json::{Value, json};

    fn faults(fields: Value) -> Vec<String> {
        let mut spec = json!({"command": ["true"]});
        let fields = fields.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let services = [(ServiceName::new("a").unwrap(), spec.into())].into();
        let fleet = Fleet {
            services,
            ..Fleet::default()
        };
        let faults = super::super::check(&fleet, None);
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_fits_together_is_no_fault() {
        let fields = json!({
            "limits": {"memory": "64MiB", "cpu": 0.5, "processes": 8},
            "sandbox": {
                "read_only": ["/usr"], "writable": ["state"], "strict": true,
                "network": {"connect": [443]}, "capabilities": ["net_bind_service"],
            },
            "notify": {"watchdog": "10s"},
        });
        assert_eq!(faults(fields), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_named_with_what_to_write() {
        let check = |fields: Value, texts: [&str; 2]| {
            let faults = faults(fields);
            assert_eq!(faults.len(), 1, "{faults:?}");
            for text in texts {
                assert!(faults[0].contains(text), "{faults:?}");
            }
        };
        check(json!({"limits": {"memory": "1MiB"}}), ["4MiB", "512MiB"]);
        check(
            json!({"sandbox": {"no_new_privileges": false}}),
            ["no_new_privileges", "remove"],
        );
        check(
            json!({"sandbox": {"strict": true}}),
            ["nothing can be read", "/usr"],
        );
        check(
            json!({"sandbox": {"capabilities": ["CAP_CHOWN"]}}),
            ["CAP_CHOWN", "net_bind"],
        );
        check(
            json!({"sandbox": {"network": {"bind": [0]}}}),
            ["found 0", "number"],
        );
        check(
            json!({"sandbox": {"writable": [""]}}),
            ["empty", "write a path"],
        );
        check(json!({"notify": {"watchdog": "0s"}}), ["0s", "10s"]);
        check(
            json!({"notify": {"enabled": false, "watchdog": "1s"}}),
            ["switched off", "remove"],
        );
    }
}
