set -euo pipefail
lua5.4 "$COMPAT_DIR/work.lua"
