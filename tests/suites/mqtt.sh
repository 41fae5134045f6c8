#!/usr/bin/env bash
# Hostile clients on the bus of a running fleet: random bytes, mutated packets, every fault that the standards name, a thousand
# clients that never finish CONNECT, large wills, floods, a reader that never reads. The fleet and well-behaved clients go on,
# and what the hostile ones took is given back.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/suites/support/fleet.sh
need mosquitto_pub
need mosquitto_sub

seed=${SUITE_SEED:-20261120}
fleet_start
before=$(fleet_rows $resting)
hostile() { python3 "$support/hostile_mqtt.py" "$api" "$bus_port" "$key" $seed "$1" || fail "hostile clients (seed $seed)"; }

# Waits until no more than these descriptors are open: sockets are closed a moment after their clients are gone.
fds_come_back() {
  local deadline=$((SECONDS + 30))
  while [ "$(host_fds)" -gt "$1" ] && [ $SECONDS -lt $deadline ]; do sleep 0.2; done
  printf 'open files of the host: %s, allowed %s\n' "$(host_fds)" "$1"
  [ "$(host_fds)" -le "$1" ] || fail "descriptors are left open"
}

fds=$(host_fds)
echo "== warm-up (seed $seed)"
hostile 0.1
fds_come_back $((fds + 20))
rss=$(host_rss)
echo "== in full (seed $seed)"
hostile 1
fds_come_back $((fds + 20))
rss_bounded "$rss"
fleet_is_sound
fleet_runs
same_rows "$before" "$(fleet_rows $resting)"
echo "mqtt: passed in $SECONDS s"
