set -euo pipefail
tclsh "$COMPAT_DIR/work.tcl"
