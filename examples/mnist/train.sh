#!/bin/sh
# From the four MNIST files to a trained federation of ten members: docs/mnist.md tells the story.
#
#   ./train.sh FOLDER_WITH_THE_FILES softmax|mlp [WHERE]
#
# Needs: pip install "choral[mnist]"
set -eu
files=$1 model=$2 where=${3:-mnist-$2}

case $model in
    softmax) options="--rounds 80 --rule fedavg --option epochs=1 --option rate=0.2 --option schedule=cosine:80" ;;
    mlp) options="--rounds 40 --rule fedavg --option epochs=1 --option hidden=200 --option rate=0.1" ;;
    *) echo "train.sh: softmax or mlp" >&2; exit 2 ;;
esac

choral data mnist "$files" --members 10 --split dirichlet:0.5 "$where/shards"
# the members' own test set is the tenth that `--holdout` keeps back; test_data.npy is nobody's
# shellcheck disable=SC2086  (several options)
choral init "$where/fed" --members 10 --shards "$where/shards" --model "$model" $options --holdout 0.1

choral serve "$where/fed/aggregator" 2>"$where/aggregator.log" &
aggregator=$!
trap 'kill $aggregator' EXIT
members=
for i in 1 2 3 4 5 6 7 8 9 10; do
    OPENBLAS_NUM_THREADS=1 choral join "$where/fed/member-$i" --data "$where/shards/client_${i}_data.npy" \
        >"$where/member-$i.log" 2>&1 &
    members="$members $!"
done
for member in $members; do wait "$member"; done

choral log "$where/fed/aggregator" | tail -n 3
choral predict "$where/fed/aggregator" --data "$where/shards/test_data.npy"
choral predict "$where/fed/aggregator" --data "$where/shards/test_data.npy" --version best
