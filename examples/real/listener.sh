#!/bin/sh
# mosquitto_sub on the bus, with the identity of this service.
set -eu
cd "$(dirname "$0")"
. ./as.sh
: "${ALICIA_MQTT_URL:?is set by alicia up}" "${ALICIA_TOKEN_FILE:?is set by alicia up}"

need mosquitto_sub mosquitto-clients
own state/listener nobody
# The token goes into a file that mosquitto_sub reads by itself: an argument would be seen by everybody in `ps`.
config=state/listener/mosquitto_sub
printf -- '-u %s\n-P %s\n' "$ALICIA_MQTT_USERNAME" "$(cat "$ALICIA_TOKEN_FILE")" > "$config"
[ "$(id -u)" != 0 ] || chown nobody: "$config"
address=${ALICIA_MQTT_URL#mqtt://}
export XDG_CONFIG_HOME="$PWD/state/listener"
run_as nobody mosquitto_sub -V mqttv5 -i "$ALICIA_SERVICE-$ALICIA_INSTANCE" -h "${address%:*}" -p "${address##*:}" \
    -t "$ALICIA_TOPIC_PREFIX/system/health/+" -F '%I %t %p'
