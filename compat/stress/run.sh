set -euo pipefail
g++ -std=c++17 -O2 -g -pthread "$COMPAT_DIR/stress.cpp" -o stress
./stress "$COMPAT_STRESS_SECONDS"
