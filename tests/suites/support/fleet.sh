# A fleet for one suite: the built binary, a data directory and ports of its own, and nothing left of it at the end.
# To be sourced. Sets `work`, `data`, `log`, `api`, `bus_port`, `key` and `host` (a pid).

# Services that do not run unless they are named.
resting='flaky'

suite=$(basename "$0" .sh)
support=tests/suites/support
work=target/suites/$suite
data=$work/data
log=$work/host.log
binary=$(realpath "${SUITE_BINARY:-target/debug/alicia}")

fail() {
  printf '%s: FAILED: %s\n' "$suite" "$1" >&2
  exit 1
}

[ -x "$binary" ] || fail "there is no $binary; \`cargo build -p alicia\` makes it"

# A program that this suite cannot do without. On a developer's machine the suite is skipped, in CI that is a failure.
need() {
  command -v "$1" >/dev/null && return
  [ "${ALICIA_REQUIRE_ALL:-}" != 1 ] || fail "$1 is missing"
  printf '%s: skipped: %s is missing\n' "$suite" "$1"
  exit 0
}

# The path of a virtual environment with these packages; made anew when the list changes.
venv() {
  local path=target/suites/venvs/$1 want=${*:2}
  if [ "$(cat "$path/.ready" 2>/dev/null)" != "$want" ]; then
    rm -rf "$path"
    python3 -m venv "$path" >&2 || fail "cannot make $path; is python3-venv installed?"
    "$path/bin/pip" install --quiet --disable-pip-version-check "${@:2}" >&2
    echo "$want" >"$path/.ready"
  fi
  realpath "$path"
}

# A port that nothing listens on.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

alicia() { "$binary" --data "$data" "$@"; }

# Starts a fleet with these arguments (before the command) and waits until all of it runs.
fleet_start() {
  need python3
  fleet_end
  rm -rf "$work/data" "$log"
  mkdir -p "$work"
  trap fleet_end EXIT
  trap 'exit 130' INT TERM
  "$binary" --data "$data" --set http.listen=127.0.0.1:0 --set broker.listen=127.0.0.1:0 "$@" \
    up --no-table >"$log" 2>&1 </dev/null &
  host=$!
  local deadline=$((SECONDS + 60))
  until [ -s "$data/host.json" ]; do
    kill -0 "$host" 2>/dev/null || fail "the host ended: $(tail -5 "$log")"
    [ $SECONDS -lt $deadline ] || fail "the host does not start: $(tail -5 "$log")"
    sleep 0.1
  done
  api=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["api"])' "$data/host.json")
  bus_port=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["bus"].rsplit(":", 1)[1])' "$data/host.json")
  key=$(cat "$data/admin.key")
  fleet_runs
}

# Waits until everything but the resting services runs.
fleet_runs() {
  python3 "$support/rows.py" wait "$api" "$key" $resting || fail "the fleet does not run: $(alicia ps)"
}

# One line for each instance: its name, state, pid and restarts; without the services named.
fleet_rows() { python3 "$support/rows.py" list "$api" "$key" "$@"; }

# Ends the host with its fleet; by force when it does not end.
fleet_end() {
  [ -n "${host:-}" ] || return 0
  kill -TERM "$host" 2>/dev/null || true
  local deadline=$((SECONDS + 30))
  while kill -0 "$host" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
  if kill -0 "$host" 2>/dev/null; then
    echo "$suite: the host did not end and is killed" >&2
    kill -KILL "$host" 2>/dev/null || true
  fi
  wait "$host" 2>/dev/null || true
  # Nothing on the machine but our keeper has this directory among its arguments.
  local keeper
  for keeper in $(pgrep -f -- "keeper --directory $(realpath "$data")/keeper" || true); do
    echo "$suite: the keeper $keeper was left behind and is killed" >&2
    kill -KILL "$keeper" 2>/dev/null || true
  done
  host=
}

# The resident memory of the host in KiB.
host_rss() { awk '/^VmRSS/ { print $2 }' "/proc/$host/status"; }

# The open file descriptors of the host.
host_fds() { find "/proc/$host/fd" -mindepth 1 | wc -l; }

# Fails when the host is gone, or anything of the fleet has panicked.
fleet_is_sound() {
  kill -0 "$host" 2>/dev/null || fail "the host is gone: $(tail -5 "$log")"
  local where
  where=$(grep -rl --include='*.log' 'panicked at' "$log" "$data/keeper" "$data/logs" || true)
  [ -z "$where" ] || fail "panicked: $(grep -h -A3 'panicked at' $where | head -20)"
}

# same_rows BEFORE AFTER: the same instances with the same pids and no restart.
same_rows() {
  [ "$1" = "$2" ] || fail "the fleet changed: $(diff <(echo "$1") <(echo "$2"))"
}

# rss_bounded BEFORE_KIB: no more than half as much again as after the warm-up.
rss_bounded() {
  local now
  now=$(host_rss)
  printf 'resident memory of the host: %s KiB after the warm-up, %s KiB at the end\n' "$1" "$now"
  [ $((now * 2)) -le $(($1 * 3)) ] || fail "the host grew from $1 to $now KiB"
}
