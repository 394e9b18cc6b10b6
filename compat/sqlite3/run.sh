set -euo pipefail
sqlite3 -batch -init /dev/null orders.db <"$COMPAT_DIR/orders.sql"
# Again in memory, with a small page cache that is turned over all the time.
sqlite3 -batch -init /dev/null -cmd 'PRAGMA cache_size = -256' :memory: <"$COMPAT_DIR/orders.sql" | tail -n 5
sqlite3 -batch -init /dev/null orders.db .dump | sha256sum
