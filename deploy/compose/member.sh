#!/bin/sh
# What a member's container in docker-compose.yml begins with: it waits for its keys, then becomes its command.
set -eu
trap 'exit 143' TERM INT
said=
until [ -e /etc/choral/task.toml ]; do
    [ -n "$said" ] || echo "waiting for keys: client1 brings up the aggregator and what makes them (or docker compose up aggregator)"
    said=yes
    sleep 1 &
    wait $!
done
exec "$@"
