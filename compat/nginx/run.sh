set -euo pipefail
PATH=$PATH:/usr/sbin
mkdir -p site temp
for number in $(seq 1 40); do
    head -c $((number * number * 100)) /dev/zero | tr '\0' "$(printf "\\$(printf %o $((65 + number % 26)))")" >"site/$number.txt"
done
sed "s|DIRECTORY|$PWD|g; s|NOBODY|$(id -un)|" "$COMPAT_DIR/nginx.conf" >nginx.conf
# A free port: the first of these that the server can bind.
for port in $(seq 18080 18180); do
    sed -i -E "s/listen 127.0.0.1:[0-9A-Z]+/listen 127.0.0.1:$port/" nginx.conf
    if nginx -p "$PWD" -e "$PWD/error.log" -c "$PWD/nginx.conf" 2>start.txt; then break; fi
    port=
done
[ -n "$port" ] || { cat start.txt >&2; exit 1; }
trap 'kill "$(cat nginx.pid)" 2>/dev/null || true' EXIT
for _ in $(seq 100); do [ -s nginx.pid ] && break; sleep 0.05; done
address=http://127.0.0.1:$port
# Not the total with headers: which answers end their connection differs from run to run.
ab -q -n 4000 -c 32 -k "$address/20.txt" | grep -E '^(Document Length|Complete requests|Failed requests|HTML)'
ab -q -n 1500 -c 16 -H 'Accept-Encoding: gzip' "$address/40.txt" | grep -E '^(Complete requests|Failed requests|Non-2xx)'
# wrk runs for a time, not a number: only that nothing went wrong can be compared.
wrk -t2 -c40 -d3s "$address/5.txt" >wrk.txt
grep -c 'requests in' wrk.txt
grep -E 'Socket errors|Non-2xx' wrk.txt || echo "no errors under wrk"
# A change of configuration under load: old workers end, new ones begin.
ab -q -n 3000 -c 16 "$address/3.txt" >reload.txt &
load=$!
kill -HUP "$(cat nginx.pid)"
wait "$load"
grep -E '^(Complete requests|Failed requests)' reload.txt
for number in $(seq 1 40); do
    ab -q -n 1 -v 2 "$address/$number.txt" | grep -a -c '^Content-Length' || true
done | sort | uniq -c
kill -QUIT "$(cat nginx.pid)"
for _ in $(seq 200); do [ -e nginx.pid ] || break; sleep 0.05; done
[ -e nginx.pid ] && echo "still there" || echo "stopped"
grep -cE '\[(emerg|alert|crit)\]' error.log || true
trap - EXIT
