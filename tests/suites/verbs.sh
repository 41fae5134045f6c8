#!/usr/bin/env bash
# Wrong input to every topic and verb that docs/asyncapi.json lists, on the bus of a running fleet: each call is refused with a
# stable code, nobody is answered who must not be, and the fleet, its state and its memory stay as they were. A verb that is new
# in the document is tried without a change here.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/suites/support/fleet.sh

seed=${SUITE_SEED:-20261121}
document=docs/asyncapi.json
# No line of the log may quote a whole message.
line_bytes_max=16384

paho=$(venv paho-2 paho-mqtt==2.2.0)
fleet_start
operate_key=$(alicia key create operator --scope operate 2>/dev/null)
read_key=$(alicia key create reader --scope read 2>/dev/null)
before=$(fleet_rows $resting)

# verbs DOCUMENT SHARE PATIENCE
verbs() {
  timeout 120 "$paho/bin/python" "$support/verbs.py" "$1" "$api" "$bus_port" "$key" "$operate_key" "$read_key" "$seed" "$2" "$3"
}

# must_fail NAME WORDS CHANGE: the suite itself, with a document that is not true.
must_fail() {
  python3 - "$document" "$work/untrue.json" "$3" <<'END'
import json, sys
document = json.load(open(sys.argv[1]))
channels = document["channels"]
exec(sys.argv[3])
json.dump(document, open(sys.argv[2], "w"))
END
  if verbs "$work/untrue.json" 0.1 5 >"$work/untrue.txt" 2>&1; then fail "$1 was not noticed"; fi
  grep -q "$2" "$work/untrue.txt" || fail "$1: $(cat "$work/untrue.txt")"
}

echo "== a document with a verb that nobody serves, and one that does not name its verbs"
must_fail "a verb that nobody serves" 'explain2/x: no answer' \
  'document["channels"] = {"x": channels["orchestrator.explain"] | {"address": "alicia/system/orchestrator/explain2/x"}}'
must_fail "verbs without names" 'does not say what {verb} may be' 'channels["orchestrator.requests"]["parameters"] = {"verb": {}}'

echo "== warm-up (seed $seed)"
verbs "$document" 0.2 20 || fail "verbs (seed $seed)"
rss=$(host_rss) fds=$(host_fds)
echo "== in full (seed $seed)"
verbs "$document" 1 20 || fail "verbs (seed $seed)"

rss_bounded "$rss"
printf 'open files of the host: %s after the warm-up, %s at the end\n' "$fds" "$(host_fds)"
[ "$(host_fds)" -le $((fds + 20)) ] || fail "descriptors are left open"
fleet_is_sound
same_rows "$before" "$(fleet_rows $resting)"
fleet_runs
echo "== signals and removals at the command line, right and wrong"
[ "$(alicia signal sensors winch)" = "sent to sensors-1" ] || fail "a signal was not sent"
alicia signal no-such-name HUP >/dev/null 2>"$work/refused.txt" && fail "a service that does not exist got a signal"
grep -q 'no-such-name' "$work/refused.txt" || fail "signal: $(cat "$work/refused.txt")"
alicia signal sensors SIGSTOP >/dev/null 2>"$work/refused.txt" && fail "SIGSTOP was sent"
grep -q 'SIGWINCH' "$work/refused.txt" || fail "signal: $(cat "$work/refused.txt")"
guest=00000000000000000000000000
alicia bus pub --bare alicia/system/discovery/register "{\"service\": \"guest\", \"instance\": \"$guest\"}" >/dev/null
deadline=$((SECONDS + 15))
until alicia agents --json | grep -q "$guest"; do
  [ $SECONDS -lt $deadline ] || fail "the guest is not registered"
done
[ "$(alicia agents --remove $guest)" = "guest $guest is removed" ] || fail "the guest was not removed"
alicia agents --remove no-such-name >/dev/null 2>"$work/refused.txt" && fail "nobody was removed"
grep -q 'no-such-name' "$work/refused.txt" || fail "remove: $(cat "$work/refused.txt")"
same_rows "$before" "$(fleet_rows $resting)"

longest=$(awk '{ if (length($0) > most) most = length($0) } END { print most + 0 }' "$log" "$data/host.log" "$data"/logs/*/*.log)
printf 'longest line of a log: %s bytes\n' "$longest"
[ "$longest" -le $line_bytes_max ] || fail "a log quotes a whole message"
grep -q 'operation failed' "$log" "$data/host.log" && fail "an operation failed: $(grep -h 'operation failed' "$log" "$data/host.log" | head -3)"
echo "verbs: passed in $SECONDS s"
