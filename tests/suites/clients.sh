#!/usr/bin/env bash
# The clients that people use, on the bus of a running fleet, each with a key: Mosquitto's, paho-mqtt 1.6 and 2 (PyPI) and
# MQTT.js (npm), with MQTT 3.1.1 and 5, over TCP and WebSocket. What a key may not do is refused to them all.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/suites/support/fleet.sh
need mosquitto_pub
need mosquitto_sub
need node
need npm

paho_old=$(venv paho-1.6 paho-mqtt==1.6.1)
paho_new=$(venv paho-2 paho-mqtt==2.2.0)
mqttjs=mqtt@5.16.0
modules=target/suites/mqttjs
if [ "$(cat "$modules/.ready" 2>/dev/null)" != "$mqttjs" ]; then
  rm -rf "$modules"
  mkdir -p "$modules"
  npm install --prefix "$modules" --no-save --no-audit --no-fund --ignore-scripts --loglevel error "$mqttjs"
  echo "$mqttjs" >"$modules/.ready"
fi

fleet_start --set broker.websocket=127.0.0.1:0
# The file of the host names the TCP address only; the log has both.
websocket_port=$(sed -nE 's/.*"broker listens".*"websocket":"[^"]*:([0-9]+)[^"]*".*/\1/p' "$log")
[ -n "$websocket_port" ] || fail "the log does not say where the WebSocket is"
read_key=$(alicia key create reader --scope read 2>/dev/null)

admin=(-h 127.0.0.1 -p "$bus_port" -u admin -P "$key")
reader=(-h 127.0.0.1 -p "$bus_port" -u reader -P "$read_key")
for version in 311 5; do
  topic=alicia/suite/mosquitto-$version
  for qos in 0 1 2; do
    mosquitto_pub "${admin[@]}" -V $version -t "$topic" -q $qos -r -m "level $qos"
    heard=$(mosquitto_sub "${reader[@]}" -V $version -t "$topic" -q 2 -C 1 -W 10 -F '%t %p %q %r')
    [ "$heard" = "$topic level $qos $qos 1" ] || fail "mosquitto_sub heard: $heard"
  done
  mosquitto_pub "${reader[@]}" -V $version -t "$topic" -q 1 -r -m forbidden >/dev/null 2>&1 || true
  heard=$(mosquitto_sub "${reader[@]}" -V $version -t "$topic" -C 1 -W 10)
  [ "$heard" = "level 2" ] || fail "a read key left a message: $heard"
  mosquitto_sub "${reader[@]}" -V $version -t 'elsewhere/#' -C 1 -W 5 >/dev/null 2>"$work/refused.txt" || true
  grep -q denied "$work/refused.txt" || fail "a read key may hear everything: $(cat "$work/refused.txt")"
  mosquitto_sub -h 127.0.0.1 -p "$bus_port" -V $version -t '#' -C 1 -W 5 2>/dev/null && fail "no key was needed"
  heard=$(mosquitto_sub "${reader[@]}" -V $version -t 'alicia/#' -C 5 -W 10 -v) || fail "the fleet is not heard"
  echo "mosquitto with MQTT $version: said and heard"
done

for paho in "$paho_old" "$paho_new"; do
  "$paho/bin/pip" list --format freeze --disable-pip-version-check | grep paho
  timeout 100 "$paho/bin/python" "$support/paho_client.py" "$bus_port" "$websocket_port" "$key" "$read_key" || fail "$paho"
done

echo "$mqttjs"
for url in "mqtt://127.0.0.1:$bus_port" "ws://127.0.0.1:$websocket_port/mqtt"; do
  NODE_PATH=$modules/node_modules timeout 60 node "$support/mqttjs_client.js" "$url" "$key" "$read_key" || fail "MQTT.js at $url"
done
fleet_runs
fleet_is_sound
echo "clients: passed in $SECONDS s"
