#!/bin/sh
# What `provision` in docker-compose.yml runs, once: every participant's folder and shard, each into its own volume.
set -eu
case $MEMBERS in
    [2-8]) ;;
    *) echo "provision: found COMPOSE_PROFILES=$MEMBERS, expected a number of members from 2 to 8" >&2; exit 1 ;;
esac

if [ -e /provision/aggregator/task.toml ]; then
    found=$(sed '/^\[bundles\]/,$d' /provision/aggregator/federation.toml | grep -c '^client[0-9]* = ')
    if [ "$found" != "$MEMBERS" ]; then
        echo "provision: these volumes hold a federation of $found members, not of $MEMBERS" >&2
        echo "provision: its members are fixed: COMPOSE_PROFILES=$found, or begin anew after docker compose down -v" >&2
        exit 1
    fi
    exit 0
fi

# task.toml at the very end: where it is, all the rest is
lay() {
    for file in "$1"/*; do [ "${file##*/}" = task.toml ] || cp -p "$file" "$2/"; done
    cp -p "$1/task.toml" "$2/"
}

names=client1
i=2
while [ "$i" -le "$MEMBERS" ]; do names=$names,client$i; i=$((i + 1)); done

cd /tmp
choral data split shards --data synthetic --members "$MEMBERS" --count $((EXAMPLES * MEMBERS)) --seed 7 --test 0.1
choral init fed --names "$names" --shards shards --rounds "$ROUNDS" --option epochs=3 --option rate=0.2 \
    --url "$URL" --tls --tls-name "$NAMES" --sealing syft
i=1
while [ "$i" -le "$MEMBERS" ]; do
    cp "shards/client_${i}_data.npy" "/provision/shard-$i/"
    lay "fed/client$i" "/provision/$i"
    i=$((i + 1))
done
cp -p fed/ca/* /provision/ca/
cp shards/test_data.npy /provision/aggregator/
# who may see the dashboard: whoever can read this file
(umask 077; python -c 'import secrets; print(secrets.token_urlsafe(24))' >/provision/aggregator/choral_dashboard_token)
lay fed/aggregator /provision/aggregator
