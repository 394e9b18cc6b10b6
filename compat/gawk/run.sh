set -euo pipefail
gawk -f "$COMPAT_DIR/work.awk"
