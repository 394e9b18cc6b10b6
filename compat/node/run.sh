set -euo pipefail
node "$COMPAT_DIR/workers.js"
