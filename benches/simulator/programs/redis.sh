#!/usr/bin/env bash
# A redis server through two days and nights: by day many clients set, get, push and let keys expire, by night a few read; each
# night ends with most of the keys gone.
set -euo pipefail
socket=$(mktemp -u)
redis-server --port 0 --unixsocket "$socket" --save '' --appendonly no --maxmemory 64mb --maxmemory-policy allkeys-lru \
    --hz 10 --lazyfree-lazy-user-flush no >/dev/null &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$socket"' EXIT
cli=(env -u LD_PRELOAD redis-cli -s "$socket")
load=(env -u LD_PRELOAD redis-benchmark -s "$socket" -q)
until "${cli[@]}" ping >/dev/null 2>&1; do sleep 0.05; done
for _day in 1 2; do
    "${load[@]}" -n 60000 -r 50000 -d 400 -c 20 -t set,get >/dev/null
    "${load[@]}" -n 30000 -r 2000 -d 120 -c 20 -t lpush,sadd,hset >/dev/null
    "${load[@]}" -n 150 -r 60 -d 300000 -c 4 -t set,get >/dev/null
    sleep 2
    for _hour in $(seq 1 25); do
        "${load[@]}" -n 60 -r 50000 -d 400 -c 2 -t get,set >/dev/null
        sleep 0.2
    done
    "${cli[@]}" flushall >/dev/null
    sleep 2
done
"${cli[@]}" shutdown nosave || true
wait "$server" || true
