set -euo pipefail
mkdir db copy sorted
{
    printf 'VERSION=3\nformat=print\ntype=btree\nmapsize=67108864\nmaxreaders=126\nHEADER=END\n'
    awk 'BEGIN { for (i = 0; i < 30000; i++) { printf " key%07d\n", (i * 7919) % 30011; s = " "; for (j = 0; j < i % 12; j++) s = s "value" i; print s "." } }'
    echo DATA=END
} >pairs.txt
mdb_load -f pairs.txt db
mdb_stat -e db | grep -E 'Entries|Tree depth'
mdb_dump db | sha256sum
mdb_copy -c db copy
mdb_dump -p copy | tail -n +8 | sha256sum
mdb_dump -p copy | mdb_load sorted
mdb_stat -ef sorted | grep -E 'Entries|Tree depth|Leaf pages'
mdb_load no-such-directory <pairs.txt 2>/dev/null || echo "a database without a place is refused"
