set -euo pipefail
javac -d . "$COMPAT_DIR/Work.java"
for collector in Serial G1 Parallel; do
    echo "== $collector"
    java -Xmx128m -Xshare:auto "-XX:+Use${collector}GC" -cp . Work
done
java -version 2>&1 | head -n 1
