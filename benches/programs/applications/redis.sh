# A server with this allocator and a client without: mixed commands, pipelined, then values of 1 KiB that are overwritten.
# What counts is the time until all requests are answered, and the server's processor time and memory.
set -euo pipefail
socket=$PWD/redis.sock
LD_PRELOAD=${BENCH_LIBRARY:-} redis-server --port 0 --unixsocket "$socket" --dir "$PWD" --save '' --appendonly no \
    --daemonize no >redis.log &
server=$!
trap 'kill -9 $server 2>/dev/null || true' EXIT
for _ in $(seq 200); do
    if [ "$(redis-cli -s "$socket" ping 2>/dev/null || true)" = PONG ]; then break; fi
    sleep 0.02
done
cpu() { awk '{ sub(/.*\) /, ""); print $12, $13 }' "/proc/$server/stat"; }
read -r user_before system_before < <(cpu)
started=$(date +%s.%N)
redis-benchmark -s "$socket" -q -n 150000 -c 20 -P 16 -r 50000 -d 60 -t set,get,lpush,sadd,hset,zadd >benchmark.txt
redis-benchmark -s "$socket" -q -n 100000 -c 20 -P 16 -r 20000 -d 1000 -t set >>benchmark.txt
ended=$(date +%s.%N)
read -r user_after system_after < <(cpu)
peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$server/status")
end=$(awk '/^VmRSS/ { print $2 }' "/proc/$server/status")
virtual=$(awk '/^VmSize/ { print $2 }' "/proc/$server/status")
redis-cli -s "$socket" info commandstats | tr -d '\r' | awk -F'[:=,]' '/^cmdstat_(set|get|lpush|sadd|hset|zadd):/ { print $1, $3 }' | sort
redis-cli -s "$socket" shutdown nosave
wait "$server" || true
awk -v started="$started" -v ended="$ended" -v u=$((user_after - user_before)) -v s=$((system_after - system_before)) \
    -v peak="$peak" -v end="$end" -v virtual="$virtual" -v ticks="$(getconf CLK_TCK)" 'BEGIN {
    printf "figures: seconds=%.4f user_s=%.2f system_s=%.2f peak_rss_kib=%d end_rss_kib=%d virtual_kib=%d\n",
        ended - started, u / ticks, s / ticks, peak, end, virtual }'
