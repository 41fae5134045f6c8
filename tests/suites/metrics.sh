#!/usr/bin/env bash
# `/metrics` of a running fleet, after some traffic: what Prometheus itself says of it, and who may read it.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/suites/support/fleet.sh
need promtool
need curl
need mosquitto_pub
fleet_start

for qos in 0 1 2; do
  mosquitto_pub -h 127.0.0.1 -p "$bus_port" -u admin -P "$key" -t home/suite -q $qos -m hello
done
# A refusal and a retained message have their own counters.
mosquitto_pub -h 127.0.0.1 -p "$bus_port" -u admin -P wrong -t home/suite -m hello 2>/dev/null && fail "a wrong key was let in"
mosquitto_pub -h 127.0.0.1 -p "$bus_port" -u admin -P "$key" -t home/suite -r -m hello
curl -fsS -o /dev/null -H "Authorization: Bearer $key" "$api/api/orchestrator/restart?service=clock&wait=30s" -X POST

status() { curl -sS -o "$work/body.txt" -w '%{http_code} %{content_type}' "$@" "$api/metrics"; }

[ "$(status)" = '401 application/problem+json' ] || fail "without a key: $(status)"
[ "$(status -H 'Authorization: Bearer alk_wrong')" = '401 application/problem+json' ] || fail "with a wrong key: $(status)"
read_key=$(alicia key create reader --scope read 2>/dev/null)
for may_read in "$key" "$read_key"; do
  found=$(status -H "Authorization: Bearer $may_read")
  [ "$found" = '200 text/plain; version=0.0.4; charset=utf-8' ] || fail "with a key: $found"
done

# A warning of promtool has the exit code 3: clean means that it says nothing.
said=$(promtool check metrics <"$work/body.txt" 2>&1) || fail "promtool: $said"
[ -z "$said" ] || fail "promtool: $said"
samples=$(grep -vc '^#' "$work/body.txt")
for module in broker registry orchestrator health; do
  grep -q "^alicia_${module}_" "$work/body.txt" || fail "no metric of $module among $samples"
done
grep -qx 'alicia_broker_refused_total{reason="bad_credentials"} 1' "$work/body.txt" || fail "the refusal was not counted"
fleet_is_sound
echo "metrics: $samples samples, passed in $SECONDS s"
