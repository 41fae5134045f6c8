#!/bin/sh
# nginx in the foreground, on loopback only, master and worker without any privilege.
set -eu
cd "$(dirname "$0")"
. ./as.sh
: "${PORT:?is set by alicia up}"

need nginx nginx
own state/nginx www-data
sed -e "s|@PORT@|$PORT|" -e "s|@ROOT@|$PWD|" nginx.conf > state/nginx/nginx.conf
[ "$(id -u)" != 0 ] || chown www-data: state/nginx/nginx.conf
run_as www-data nginx -p "$PWD/state/nginx" -c "$PWD/state/nginx/nginx.conf" -e stderr
