#!/bin/sh
# client.sh NAME: what client-deployment.yml has for client1, for another member. See deploy/overlays/three-clients.
set -eu
name=${1:?client.sh NAME, for example client.sh client3}
cd "$(dirname "$0")"
awk -v stop='name: client2-state' '
    /^---$/ { for (i = 0; i < n; i++) print held[i]; n = 0 }
    { held[n++] = $0 }
    index($0, stop) { exit }
' client-deployment.yml | sed "1d; s/client1/$name/g"
