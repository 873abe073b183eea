#!/bin/sh
# What a member's container in docker-compose.yml begins with: it waits for its keys, then runs its command.
set -eu
trap 'exit 143' TERM INT
folder=${CHORAL_FOLDER:-/etc/choral}
said=
until [ -e "$folder/task.toml" ] || [ -s "$folder/no-member" ]; do
    [ -n "$said" ] || echo "waiting for keys: client1 brings up the aggregator and what makes them (or docker compose up aggregator)"
    said=yes
    sleep 1 &
    wait $!
done
if [ ! -e "$folder/task.toml" ]; then
    cat "$folder/no-member"
    exit 0 # a restart would not make it one
fi
[ ! -s "$folder/notice" ] || cat "$folder/notice"

"$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM INT
code=0
while wait "$child" || code=$?; [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; do code=0; done
case $code in
    # Choral's own words for an error that a person has to mend: another start would end the same way
    1|2) echo "ended, and not started again: see the error above; then docker compose up again"; exit 0 ;;
    *) exit "$code" ;;
esac
