//! Services in containers: what the engine would refuse, or take for something else.

use alicia_contract::fleet::HOST_NETWORK;

use super::Service;

pub(super) fn check(service: &mut Service<'_, '_>) {
    let Some(container) = &service.spec.container else {
        return;
    };
    if container.image.chars().any(char::is_whitespace) {
        let message = format!("`{}` is no name of an image", container.image);
        service.fault(
            "container/image",
            message,
            "write for example `postgres:16`",
        );
    }
    if let Some(engine) = container
        .engine
        .as_deref()
        .filter(|engine| !is_socket(engine))
    {
        let message = format!("`{engine}` is no Unix socket");
        let hint = "write for example `unix:///run/podman/podman.sock`";
        service.fault("container/engine", message, hint);
    }
    if service.spec.user.is_some() {
        let message = "`user` is a user of this machine, but the service runs in a container";
        service.fault("user", message, "write it below `container:`");
    }
    if service.spec.directory.is_some() {
        let message =
            "`directory` is a directory of this machine, but the service runs in a container";
        service.fault("directory", message, "write it below `container:`");
    }
    check_network(service);
    check_volumes(service);
}

fn is_socket(engine: &str) -> bool {
    engine
        .strip_prefix("unix://")
        .unwrap_or(engine)
        .starts_with('/')
}

fn check_network(service: &mut Service<'_, '_>) {
    let Some(container) = &service.spec.container else {
        return;
    };
    let on_host = container.network == HOST_NETWORK;
    if on_host && !container.ports.is_empty() {
        let message = "on the network of the machine a container has the ports of the service";
        let hint = "remove `container.ports`, or write `network: bridge`";
        return service.fault("container/ports", message, hint);
    }
    for name in container.ports.keys() {
        if !service.spec.ports.contains_key(name) {
            let message = format!("the service has no port `{name}`");
            let hint = format!("add `{name}: auto` below the `ports:` of the service");
            service.fault(&format!("container/ports/{name}"), message, hint);
        }
    }
    if on_host {
        return;
    }
    for name in service.spec.ports.keys() {
        if !container.ports.contains_key(name) {
            let message = format!("nothing says which port of the container `{name}` is");
            let hint = format!("add `{name}: 80`, or whatever it is, below `container.ports:`");
            service.fault(&format!("ports/{name}"), message, hint);
        }
    }
}

fn check_volumes(service: &mut Service<'_, '_>) {
    let Some(container) = &service.spec.container else {
        return;
    };
    for (index, volume) in container.volumes.iter().enumerate() {
        let mut parts = volume.split(':');
        let (source, target, mode) = (parts.next(), parts.next(), parts.next());
        let is_good = source.is_some_and(|source| !source.is_empty())
            && target.is_some_and(|target| target.starts_with('/'))
            && matches!(mode, None | Some("ro" | "rw"))
            && parts.next().is_none();
        if !is_good {
            let message = format!(
                "found the volume `{volume}`, expected `source:/target` or `source:/target:ro`"
            );
            let hint = "the target is a whole path in the container";
            service.fault(&format!("container/volumes/{index}"), message, hint);
        }
    }
}
