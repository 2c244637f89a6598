#!/bin/sh
# Starts Mosquitto in its container with deploy/mosquitto's two files. Two things are said otherwise here: the listener is
# reached from other containers, and the image has no Debian around it that says where data lies.
# MOSQUITTO_USERS: user:password, separated by blanks.
set -eu
at="${MOSQUITTO_RUN:-/mosquitto/data}"
umask 077
: > "$at/passwd"
for login in $MOSQUITTO_USERS; do
  mosquitto_passwd -b "$at/passwd" "${login%%:*}" "${login#*:}"
done
cp "${MOSQUITTO_ACL:-/etc/mosquitto/onhand.acl}" "$at/acl"
sed -e "s|^listener 1883 127.0.0.1\$|listener ${MOSQUITTO_PORT:-1883}|" \
    -e "s|^password_file .*|password_file $at/passwd|" \
    -e "s|^acl_file .*|acl_file $at/acl|" \
    "${MOSQUITTO_CONF:-/etc/mosquitto/onhand.conf}" > "$at/mosquitto.conf"
printf 'persistence_location %s/\nlog_dest stderr\n' "$at" >> "$at/mosquitto.conf"
exec mosquitto -c "$at/mosquitto.conf"
