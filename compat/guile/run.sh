set -euo pipefail
export GUILE_AUTO_COMPILE=0 HOME=$PWD
guile --no-auto-compile -s "$COMPAT_DIR/work.scm"
