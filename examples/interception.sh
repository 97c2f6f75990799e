#!/bin/bash
# Two machines (network namespaces), a sidecar beside each, and curl between them, which knows of neither. Needs root and nft.
#
#   sudo examples/interception.sh
#
# Shows what the client saw, what the sidecars counted, and that nothing is left.
set -euo pipefail
cd "$(dirname "$0")/.."
MESHPROXY=${MESHPROXY:-$PWD/.venv/bin/meshproxy}
UID_OF_PROXY=2102
CLIENT=mesh-example-client
SERVER=mesh-example-server

[ "$(id -u)" = 0 ] || { echo "this needs root: network namespaces and rules" >&2; exit 1; }
WORK=$(mktemp -d)
chmod 755 "$WORK"

finish() {
    # shellcheck disable=SC2046  # a list of process ids
    kill $(jobs -p) 2>/dev/null || true
    wait
    ip netns del $CLIENT 2>/dev/null || true
    ip netns del $SERVER 2>/dev/null || true
    rm -rf "$WORK"
}
trap finish EXIT

ip netns add $CLIENT
ip netns add $SERVER
ip link add to-server netns $CLIENT type veth peer name to-client netns $SERVER
ip -n $CLIENT addr add 10.78.0.1/24 dev to-server
ip -n $SERVER addr add 10.78.0.2/24 dev to-client
for machine in "$CLIENT to-server" "$SERVER to-client"; do
    # shellcheck disable=SC2086  # a machine and its device
    set -- $machine
    ip -n "$1" link set lo up
    ip -n "$1" link set "$2" up
done

# The application, and a sidecar on each machine.
echo "the page" >"$WORK/page"
ip netns exec $SERVER python3 -m http.server --bind 10.78.0.2 --directory "$WORK" 8080 >/dev/null 2>&1 &
for machine in $CLIENT $SERVER; do
    install -d -o $UID_OF_PROXY "$WORK/$machine"
    sed "s|unix:[^\"]*|unix:$WORK/$machine/admin|" examples/sidecar.yaml >"$WORK/$machine/sidecar.yaml"
    ip netns exec $machine setpriv --reuid=$UID_OF_PROXY --regid=$UID_OF_PROXY --clear-groups \
        "$MESHPROXY" run -c "$WORK/$machine/sidecar.yaml" >"$WORK/$machine/log" 2>&1 &
done
until [ -S "$WORK/$CLIENT/admin" ] && [ -S "$WORK/$SERVER/admin" ] &&
      ip netns exec $SERVER curl -s http://10.78.0.2:8080/page >/dev/null; do sleep 0.1; done
for machine in $CLIENT $SERVER; do ip netns exec $machine "$MESHPROXY" intercept --apply; done

echo "--- curl asks the server's address; it has no proxy set:"
ip netns exec $CLIENT curl -sSi --noproxy '*' http://10.78.0.2:8080/page
for machine in $CLIENT $SERVER; do
    echo "--- what the sidecar of $machine sent where it was going:"
    "$MESHPROXY" stat -t 0 --admin "unix:$WORK/$machine/admin"
done
for machine in $CLIENT $SERVER; do ip netns exec $machine "$MESHPROXY" intercept --undo; done
