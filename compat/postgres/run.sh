set -euo pipefail
programs=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
data=$PWD/data
# The server refuses to run as root; then everything here runs as a user without rights.
as=()
if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    chmod 755 .. . && mkdir -p "$data" run && chown 65534:65534 "$data" run && chmod 700 "$data"
else
    mkdir -p "$data" run
fi
export PGHOST=$PWD/run PGUSER=tester PGDATABASE=postgres PGTZ=UTC HOME=$PWD/run
# The directories above may be closed to the user: everything is named by its full path, and the server starts at the root.
"${as[@]}" env -C / "$programs/initdb" -D "$data" -U tester -A trust -E UTF8 --locale=C --no-sync >initdb.txt
"${as[@]}" env -C / "$programs/pg_ctl" -D "$data" -l "$PWD/run/log" -w -s \
    -o "-c listen_addresses= -c unix_socket_directories=$PWD/run -c fsync=off -c shared_buffers=32MB -c jit=on -c jit_above_cost=1000" start
trap '"${as[@]}" env -C / "$programs/pg_ctl" -D "$data" -m immediate -s stop || true' EXIT
"$programs/psql" -X -q -v ON_ERROR_STOP=1 -f "$COMPAT_DIR/queries.sql"
"$programs/pgbench" -i -s 2 -q 2>init.txt
"$programs/pgbench" -c 8 -j 2 -t 250 -n 2>&1 | grep -E 'number of transactions actually|failed'
# Money is neither made nor lost by transfers: the four tables agree.
"$programs/psql" -X -A -t -v ON_ERROR_STOP=1 <<'SQL'
select count(*) from pgbench_history;
select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
       (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history),
       (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history);
SQL
# A dump is guarded by words made up for it.
"$programs/pg_dump" -t 'lines' | grep -vE '^.(un)?restrict ' | sha256sum
"${as[@]}" env -C / "$programs/pg_ctl" -D "$data" -m fast -w -s stop
trap - EXIT
echo "server stopped"
