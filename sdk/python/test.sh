#!/bin/sh
# Tests the library with the oldest and the newest paho-mqtt that it works with: mypy --strict, then pytest against a
# real mosquitto. Extra arguments go to pytest. The virtual environments stay under target/.
#
#   PYTHON=python3.9 sdk/python/test.sh -k calls
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
root=$(cd ../.. && pwd)/target/sdk-python

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
    echo "test.sh: needs Python 3.9 or newer, found $("$python" --version 2>&1)" >&2
    exit 1
fi

for paho in 1.6.1 2.2.0; do
    tag=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-paho-$paho
    venv=$root/$tag
    want="$paho $(cksum < pyproject.toml)"
    if [ "$(cat "$venv/.ready" 2>/dev/null || true)" != "$want" ]; then
        rm -rf "$venv"
        "$python" -m venv "$venv" || { echo "test.sh: cannot make $venv; is python3-venv installed?" >&2; exit 1; }
        "$venv/bin/pip" install --quiet --editable '.[test]' "paho-mqtt==$paho"
        echo "$want" > "$venv/.ready"
    fi
    echo "== $tag: mypy --strict"
    "$venv/bin/mypy" --cache-dir "$venv/.mypy_cache"
    echo "== $tag: pytest"
    "$venv/bin/pytest" -q -o cache_dir="$venv/.pytest_cache" "$@"
done
