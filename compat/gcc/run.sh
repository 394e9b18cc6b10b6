set -euo pipefail
cp "$COMPAT_DIR/library.cpp" .
for level in -O0 -O2; do
    g++ -std=c++17 $level -pthread -c library.cpp -o library.o
    echo "object $level: $(sha256sum <library.o)"
    g++ -pthread library.o -o library
    ./library
done
