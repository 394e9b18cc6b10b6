set -euo pipefail
# The same source as the case of g++, which is not to be written twice.
cp "$COMPAT_DIR/../gcc/library.cpp" .
clang++ -std=c++17 -O1 -pthread -c library.cpp -o library.o
echo "object: $(sha256sum <library.o)"
clang++ -pthread library.o -o library
./library
clang++ -std=c++17 -fsyntax-only -Xclang -ast-list -fno-color-diagnostics library.cpp | wc -l
