#!/usr/bin/env bash
# Wrong and hostile input to every REST route of a running fleet: no fault of the server, no panic, no leak, and the fleet
# goes on. Uses schemathesis (PyPI) on the OpenAPI document, and raw sockets for what is no HTTP.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/suites/support/fleet.sh

seed=${SUITE_SEED:-20261120}
examples=8

# `POST /api/host/stop` is left out by name: it ends the host; the command line's tests cover it. So is `GET
# /api/orchestrator/logs`, which follows for ever when it is asked to; the tests of log search cover it. The operations that start and
# stop services are tried on a service of this suite first, so that it can be seen that nothing else changes, and on whatever
# schemathesis thinks of at the end; but for scaling, or it would run a thousand of what it finds.
changing='^/api/(orchestrator/((services/\{name\}/)?(start|stop|restart|signal|pause|resume|update)|deploy|rollback|scale/.*)|health/restart/.*)$'

# All checks of schemathesis but one: that what fits the schema is accepted. Some rules cannot be written into a schema (a
# version is semantic, a period is at most ten minutes), and JSON Schema takes 1.0 for an integer where this API does not.
schemathesis() {
  # It leaves a cache where it runs.
  (cd "$work" && "$tools/bin/schemathesis" --config-file "$config" run "$api/openapi.json" --url "$api" --header "Authorization: Bearer $key" \
    --exclude-path /api/host/stop --exclude-path /api/orchestrator/logs --exclude-checks positive_data_acceptance --suppress-health-check all \
    --generation-database none --request-timeout 15 --warnings off --no-color "$@" >schemathesis.txt) ||
    { cat "$work/schemathesis.txt"; fail "schemathesis found something (seed $seed)"; }
  grep -E 'Tested:|generated' "$work/schemathesis.txt"
}

tools=$(venv schemathesis schemathesis==4.32.5)
work=$(realpath -m "$work")
config=$work/none.toml
mkdir -p "$work/fleet"
: >"$config"
cp crates/alicia/src/home.yaml "$work/fleet/"
cat >"$work/fleet/patient.yaml" <<END
services:
  patient:
    description: May be stopped and started by whoever tries out the API; nothing depends on it.
    command: [sleep, infinity]
    groups: [patients]
    start_limit: {starts: 100000, within: 1s}
    ports: {http: $(free_port)} # a fixed port holds it at one instance, whatever number is asked for
END
fleet_start --file "$work/fleet"

echo "== who may call what"
read_key=$(alicia key create reader --scope read 2>/dev/null)
python3 "$support/access.py" "$api" "$read_key" || fail "access"

echo "== warm-up, then all that changes no service (seed $seed, $examples examples)"
schemathesis --exclude-path-regex "$changing" --phases coverage --seed $seed
fleet_runs
before=$(fleet_rows patient $resting)
rss=$(host_rss) fds=$(host_fds)
schemathesis --exclude-path-regex "$changing" --max-examples $examples --seed $seed

echo "== operations on one service, by its real name"
config=$(realpath $support/schemathesis.toml)
schemathesis --include-path-regex '\{(name|service)\}' --exclude-path /api/keys/{name} --phases coverage,fuzzing \
  --max-examples $examples --seed $seed

echo "== what is no HTTP"
python3 "$support/hostile_http.py" "$api" "$key" $seed || fail "hostile requests"
fleet_is_sound
same_rows "$before" "$(fleet_rows patient $resting)"

echo "== starts and stops of whatever it thinks of, the whole fleet included"
config=$work/none.toml
schemathesis --include-path-regex "$changing" --exclude-path '/api/orchestrator/scale/{service}' --phases coverage,fuzzing --max-examples 4 --seed $seed
# It may have put an empty file in force, gone back to one, or paused what runs.
alicia deploy >/dev/null
alicia resume >/dev/null
alicia start >/dev/null
fleet_runs
fleet_is_sound

rss_bounded "$rss"
printf 'open files of the host: %s after the warm-up, %s at the end\n' "$fds" "$(host_fds)"
[ "$(host_fds)" -le $((fds + 20)) ] || fail "descriptors are left open"
echo "rest: passed in $SECONDS s"
