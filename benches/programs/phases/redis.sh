# A server through two days: busy with small values, a night with a request now and then after most was dropped, another day
# with larger values that are overwritten, another night. The client is orphaned, so that only the server is measured.
set -euo pipefail
directory=$(mktemp -d)
socket=$directory/redis.sock

client() {
    for _ in $(seq 500); do
        if [ "$(redis-cli -s "$socket" ping 2>/dev/null || true)" = PONG ]; then break; fi
        sleep 0.02
    done
    load() { redis-benchmark -s "$socket" -q -c 20 -P 16 "$@"; }
    night() { for _ in $(seq 30); do redis-cli -s "$socket" get key >&2; sleep 0.1; done; }
    load --dbnum 1 -n 200000 -r 100000 -d 100 -t set,hset
    load -n 60000 -r 20000 -d 60 -t set,lpush,sadd,zadd
    redis-cli -s "$socket" -n 1 flushdb
    night
    load -n 200000 -r 20000 -d 1500 -t set
    load -n 60000 -r 60000 -d 400 -t get,set
    redis-cli -s "$socket" flushall
    load -n 20000 -r 5000 -d 100 -t set
    night
    # The socket is gone before the server is: whoever waits for the server may take its place at once.
    { sleep 0.2; rm -rf "$directory"; echo shutdown nosave; sleep 0.2; } | redis-cli -s "$socket"
}

( (unset LD_PRELOAD; for name in ${!HAKMEM_@}; do unset "$name"; done; client) >/dev/null 2>&1 &)
exec redis-server --port 0 --unixsocket "$socket" --dir "$directory" --save '' --appendonly no --daemonize no
