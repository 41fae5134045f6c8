//! Mistakes in what decides about the life of a service: where it runs, what follows an end, what it may use.

use super::*;

#[test]
fn containers() {
    check(
        "services:\n  db:\n    container:\n      image: postgres 16\n      engine: tcp://localhost\n      volumes: [data]\n    user: root\n    ports: {http: auto}\n",
        &[
            "4:14: `postgres 16` is no name of an image | write for example `postgres:16`",
            "5:15: `tcp://localhost` is no Unix socket | write for example `unix:///run/podman/podman.sock`",
            "6:17: found the volume `data`, expected `source:/target` or `source:/target:ro` | the target is a whole path in the container",
            "7:11: `user` is a user of this machine, but the service runs in a container | write it below `container:`",
        ],
    );
    check(
        "services:\n  web:\n    container: {image: x, network: bridge, ports: {https: 443}}\n    ports: {http: auto}\n",
        &[
            "3:59: the service has no port `https` | add `https: auto` below the `ports:` of the service",
            "4:19: nothing says which port of the container `http` is | add `http: 80`, or whatever it is, below `container.ports:`",
        ],
    );
    check(
        "services:\n  web:\n    container: {image: x, ports: {http: 80}}\n    ports: {http: auto}\n",
        &[
            "3:27: on the network of the machine a container has the ports of the service | remove `container.ports`, or write `network: bridge`",
        ],
    );
}

#[test]
fn what_follows_an_end_and_what_may_be_used_up() {
    check(
        "services:\n  a:\n    command: x\n    on_exit:\n      codes: {\"75\": provider-limit, \"300\": crash}\n      prevent_restart: [3, SIGTREM]\n      force_restart: [3]\n      park_for: 0s\n",
        &[
            "4:5: `3` is in `prevent_restart` and in `force_restart` | remove it from one of them",
            "5:37: `300` is no exit code of a failure | use 1 to 255",
            "6:28: there is no signal `SIGTREM` that ends a process | did you mean `SIGTERM`?",
            "8:17: `park_for` is 0s, so that it starts again at once | write for example `1m`",
        ],
    );
    check(
        "services:\n  a:\n    command: x\n    on_exit: {out_of_memory: fail}\n    progress: {then: pause}\n    budget: {}\n    start_limit: {retry_every: 0s}\n",
        &["4:15: unknown key `out_of_memory` | did you mean `out-of-memory`?"],
    );
    check(
        "services:\n  a:\n    command: x\n    progress: {then: pause}\n    budget: {cost_per_day_usd: 0}\n    start_limit: {retry_every: 0s}\n",
        &[
            "4:5: `progress` does not say what to look at | add `within`, `repeat`, `tokens_per_minute` or `cost_per_hour`",
            "6:32: `retry_every` is 0s, which is a crash loop without an end | write for example `5m`, or `give_up: true`",
        ],
    );
    check(
        "services:\n  a:\n    command: x\n    readiness: {notify: true, tcp: {port: 1}}\n    liveness: {notify: true}\n  b:\n    command: x\n    readiness: {watchdog: 5s}\n    liveness: {watchdog: 5ms}\n",
        &[
            "4:5: the probe has `notify` and `tcp`, expected one | keep one of them",
            "5:24: `notify` tells that something became ready, not that it still is | write `watchdog: 10s`",
            "8:27: `watchdog` tells that something still lives, not that it is ready | move it to `liveness`",
            "9:26: `watchdog` is too short, at least 100ms | write for example `10s`",
        ],
    );
}

#[test]
fn groups() {
    check(
        "services:\n  a:\n    command: x\n    groups: [web, team]\ngroups:\n  web: {supervision: {}, parent: tema}\n  team: {supervision: {strategy: one-for-all}, budget: {tokens_per_day: 5}}\n  tean: {description: nobody}\n",
        &[
            "4:5: it is supervised by 2 groups | keep one of `web` or `team`",
            "6:34: there is no group `tema` | did you mean `team`?",
            "8:3: no service is in the group `tean` | did you mean `team`?",
        ],
    );
    check(
        "services:\n  a: {command: x, groups: [g]}\ngroups:\n  g: {parent: h}\n  h: {parent: g}\n",
        &[
            "4:15: the group `g` is above itself | remove one `parent` of the circle",
            "5:15: the group `h` is above itself | remove one `parent` of the circle",
        ],
    );
}
