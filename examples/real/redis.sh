#!/bin/sh
# Redis in the foreground, on loopback only, with its data in state/redis.
set -eu
cd "$(dirname "$0")"
. ./as.sh
: "${PORT:?is set by alicia up}"

need redis-server redis-server
own state/redis redis
run_as redis redis-server --port "$PORT" --bind 127.0.0.1 --protected-mode yes --dir "$PWD/state/redis" \
    --appendonly yes --daemonize no --supervised no --pidfile "" --logfile ""
