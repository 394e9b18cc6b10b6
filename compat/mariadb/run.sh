set -euo pipefail
data=$PWD/data
socket=$PWD/socket
user=$(id -un)
mariadb-install-db --no-defaults --datadir="$data" --user="$user" --auth-root-authentication-method=normal >install.txt 2>&1
mariadbd --no-defaults --datadir="$data" --socket="$socket" --user="$user" --skip-networking --pid-file="$PWD/pid" \
    --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 --log-error="$PWD/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    if mariadb-admin --no-defaults --socket="$socket" --user=root ping >ping.txt 2>&1; then break; fi
    kill -0 "$server" || { tail -n 20 log >&2; exit 1; }
    sleep 0.1
done
mariadb --no-defaults --socket="$socket" --user=root --batch <"$COMPAT_DIR/queries.sql"
# Several clients at once, each with its own rows.
for client in 1 2 3 4; do
    for row in $(seq 200); do
        echo "insert into test.clients values ($client, $row, repeat('x', $row));"
    done | mariadb --no-defaults --socket="$socket" --user=root &
    clients[client]=$!
done
wait "${clients[@]}"
mariadb --no-defaults --socket="$socket" --user=root --batch \
    -e 'select client, count(*), sum(length(filler)) from test.clients group by client order by client; check table test.orders, test.clients'
mariadb-admin --no-defaults --socket="$socket" --user=root shutdown
status=0
wait "$server" || status=$?
trap - EXIT
echo "server: status $status"
