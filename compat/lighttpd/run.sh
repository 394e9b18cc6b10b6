set -euo pipefail
PATH=$PATH:/usr/sbin
mkdir site
for number in $(seq 1 20); do head -c $((number * 5000)) /dev/zero | tr '\0' x >"site/$number.txt"; done
for port in $(seq 18280 18380); do
    printf 'server.document-root = "%s/site"\nserver.port = %d\nserver.bind = "127.0.0.1"\nmimetype.assign = (".txt" => "text/plain")\nserver.errorlog = "%s/error.log"\nserver.pid-file = "%s/pid"\n' \
        "$PWD" "$port" "$PWD" "$PWD" >lighttpd.conf
    if lighttpd -f lighttpd.conf 2>start.txt; then break; fi
    port=
done
[ -n "$port" ] || { cat start.txt >&2; exit 1; }
for _ in $(seq 100); do [ -s pid ] && break; sleep 0.05; done
trap 'kill "$(cat pid)" 2>/dev/null || true' EXIT
for number in 1 7 20; do
    ab -q -n 2000 -c 24 -k "http://127.0.0.1:$port/$number.txt" | grep -E '^(Document Length|Complete requests|Failed requests)'
done
ab -q -n 500 -c 8 "http://127.0.0.1:$port/none.txt" | grep -E '^(Complete requests|Non-2xx)'
kill -INT "$(cat pid)"
for _ in $(seq 200); do [ -e pid ] || break; sleep 0.05; done
[ -e pid ] && echo "still there" || echo "stopped"
trap - EXIT
