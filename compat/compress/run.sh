set -euo pipefail
awk 'BEGIN { s = 12345; for (i = 0; i < 900000; i++) { s = (s * 1103515245 + 12345) % 2147483648; printf "%x%s", int(s / 65536) % 5003, i % 9 ? " " : "\n" } }' >data
sha256sum <data
xz -T2 --block-size=1MiB -3 -c data >data.xz
xz -T2 -dc data.xz | sha256sum
xz --robot --list data.xz | awk '/^totals/ { print $2, $3 }'
zstd -q -T2 -9 -c data >data.zst
zstd -q -dc data.zst | sha256sum
zstd -q -T2 --long=24 -15 -c data | zstd -q --long=24 -dc | sha256sum
split -b 400000 data part.
zstd -q --train part.* -o dictionary --maxdict=20000
for part in part.a?; do zstd -q -D dictionary -c "$part" | zstd -q -D dictionary -dc; done | sha256sum
gzip -9 -c data | gzip -dc | sha256sum
bzip2 -c data | bzip2 -dc | sha256sum
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - part.* | sha256sum
sort -S 4M --parallel=2 data | sha256sum
