#!/bin/sh
# What `provision` in docker-compose.yml runs: every participant's folder and shard, each into its own volume, once.
# Later it finds them there. If something else is asked for then, it says what is there, what was asked and what to
# do, here and at every member, and leaves all that runs as it is.
set -eu
home=${PROVISION:-/provision}
most=8
asked="$ROUNDS $RATE $EPOCHS $MODEL $DATA $EXAMPLES"

# said FILE: the same words to the log and to members
say() { echo "provision: $1"; echo "$1" >>"$notes"; }

notes=$(mktemp)
if [ -e "$home/aggregator/task.toml" ]; then
    read -r members was <"$home/aggregator/provisioned"
    case $MEMBERS in
        "$members") ;;
        *)
            say "this federation has $members members, COMPOSE_PROFILES=$MEMBERS was asked for: its members are fixed with its keys."
            say "go on with COMPOSE_PROFILES=$members, or begin anew after: docker compose --profile '*' down -v"
            ;;
    esac
    if [ "$was" != "$asked" ]; then
        set -- $was
        say "this federation's task is fixed: ROUNDS=$1 RATE=$2 EPOCHS=$3 MODEL=$4 DATA=$5 EXAMPLES=$6."
        set -- $asked
        say "ROUNDS=$1 RATE=$2 EPOCHS=$3 MODEL=$4 DATA=$5 EXAMPLES=$6 was asked for, and is left aside."
        say "another task is another federation: docker compose --profile '*' down -v, then up again"
    fi
    i=1
    while [ "$i" -le "$most" ]; do
        cp "$notes" "$home/$i/notice"
        if [ "$i" -gt "$members" ]; then
            echo "client$i is no member: this federation was made for $members (client1 to client$members)." >"$home/$i/no-member"
            cat "$notes" >>"$home/$i/no-member"
        fi
        i=$((i + 1))
    done
    exit 0
fi

case $MEMBERS in
    [2-8]) ;;
    *) echo "provision: found COMPOSE_PROFILES=$MEMBERS, expected a number of members from 2 to $most" >&2; exit 1 ;;
esac

# task.toml at the very end: where it is, all the rest is
lay() {
    for file in "$1"/*; do [ "${file##*/}" = task.toml ] || cp -p "$file" "$2/"; done
    cp -p "$1/task.toml" "$2/"
}

names=client1
i=2
while [ "$i" -le "$MEMBERS" ]; do names=$names,client$i; i=$((i + 1)); done

cd "$(mktemp -d)"
choral data split shards --data "$DATA" --members "$MEMBERS" --count $((EXAMPLES * MEMBERS)) --seed 7 --test 0.1
choral init fed --names "$names" --shards shards --rounds "$ROUNDS" --model "$MODEL" \
    --option epochs="$EPOCHS" --option rate="$RATE" --url "$URL" --tls --tls-name "$NAMES" --sealing syft
i=1
while [ "$i" -le "$most" ]; do
    if [ "$i" -le "$MEMBERS" ]; then
        cp "shards/client_${i}_data.npy" "$home/shard-$i/"
        lay "fed/client$i" "$home/$i"
    else
        echo "client$i is no member: this federation was made for $MEMBERS (client1 to client$MEMBERS)." >"$home/$i/no-member"
        echo "more members: docker compose --profile '*' down -v, then COMPOSE_PROFILES=$i docker compose up" >>"$home/$i/no-member"
    fi
    i=$((i + 1))
done
cp -p fed/ca/* "$home/ca/"
cp shards/test_data.npy "$home/aggregator/"
# who may see the dashboard: whoever can read this file
(umask 077; python -c 'import secrets; print(secrets.token_urlsafe(24))' >"$home/aggregator/choral_dashboard_token")
echo "$MEMBERS $asked" >"$home/aggregator/provisioned"
lay fed/aggregator "$home/aggregator"
