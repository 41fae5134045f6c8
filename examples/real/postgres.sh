#!/bin/sh
# PostgreSQL in the foreground, on loopback only. The first start makes the data directory and a password.
set -eu
cd "$(dirname "$0")"
. ./as.sh
: "${PORT:?is set by alicia up}"

# Debian keeps each version in a directory of its own; the newest one is taken.
bin=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -t/ -k5 -n | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v postgres || stop "postgres is not installed: apt-get install postgresql")")

own state/postgres postgres
if [ ! -d state/postgres/data ]; then
    # Into another directory first: a start that was cut off leaves nothing that looks finished.
    rm -rf state/postgres/new
    head -c 18 /dev/urandom | base64 > state/postgres/password
    [ "$(id -u)" != 0 ] || chown postgres: state/postgres/password
    as postgres "$bin/initdb" --pgdata=state/postgres/new --username=postgres --pwfile=state/postgres/password \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    mv state/postgres/new state/postgres/data
fi
run_as postgres "$bin/postgres" -D state/postgres/data -p "$PORT" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c logging_collector=off
