set -euo pipefail
socket=$PWD/redis.sock
start() {
    redis-server --port 0 --unixsocket "$socket" --dir "$PWD" --save '' --daemonize no --io-threads 2 \
        --enable-debug-command yes --logfile "$PWD/redis.log" &
    server=$!
    for _ in $(seq 200); do
        if [ "$(redis-cli -s "$socket" ping 2>/dev/null || true)" = PONG ]; then return; fi
        kill -0 "$server" || { cat redis.log >&2; return 1; }
        sleep 0.05
    done
    echo "the server does not answer" >&2
    return 1
}
# A command that prints an error does not fail redis-cli without -e.
cli() { redis-cli -e -s "$socket" "$@"; }

start
redis-benchmark -s "$socket" -q -n 10000 -c 20 -d 300 -r 5000 \
    -t ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset >benchmark.txt
echo "benchmark: status $?, $(tr '\r' '\n' <benchmark.txt | grep -c 'requests per second') tests"
redis-benchmark -s "$socket" -q -n 20000 -c 20 -P 16 --threads 2 -d 4000 -r 2000 -t set,get >>benchmark.txt
cli ping
cli flushall

# Known contents: every type, small and large encodings, deletions and expiries in between.
cli --eval "$COMPAT_DIR/fill.lua"
cli debug digest
cli dbsize
cli bgsave >save.txt
for _ in $(seq 600); do
    if cli info persistence | grep -q '^rdb_bgsave_in_progress:0'; then break; fi
    sleep 0.05
done
cli info persistence | tr -d '\r' | grep '^rdb_last_bgsave_status'
cli ping
cli shutdown save
wait "$server"
echo "server: status $?"

start
cli debug digest
cli get 'string:77'
cli zrange 'sorted:3' 0 4 withscores
cli shutdown nosave
wait "$server"
echo "server: status $?"
