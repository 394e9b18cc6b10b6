#!/usr/bin/env bash
# One sqlite3 process: a table is filled, queried in bursts, grouped and sorted, emptied; with pauses, twice.
set -euo pipefail
statements() {
    echo "PRAGMA temp_store=MEMORY; PRAGMA cache_size=-40000;"
    for _round in 1 2; do
        echo "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, day INT, note TEXT);"
        echo "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60000) INSERT INTO orders SELECT i, i*7919%997, i%365, hex(i*i)||substr('abcdefghijklmnopqrstuvwxyz',i%20) FROM n;"
        sleep 2
        for query in $(seq 1 60); do
            echo "SELECT count(*), max(note) FROM orders WHERE customer=$((query * 13 % 997));"
            sleep 0.05
        done
        echo "CREATE INDEX by_customer ON orders(customer, day);"
        echo "SELECT count(*) FROM (SELECT customer, group_concat(note) FROM orders GROUP BY customer);"
        echo "SELECT sum(length(note)) FROM (SELECT * FROM orders ORDER BY note DESC, day);"
        sleep 1
        for query in $(seq 1 60); do
            echo "SELECT a.id FROM orders a JOIN orders b ON a.customer=b.customer AND b.day=a.day WHERE a.id=$((query * 101)) LIMIT 5;"
            sleep 0.03
        done
        echo "DROP TABLE orders; VACUUM;"
        sleep 2
    done
}
statements | sqlite3 -batch -init /dev/null :memory: >/dev/null
