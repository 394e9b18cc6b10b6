set -euo pipefail
ruby --disable-gems "$COMPAT_DIR/work.rb"
