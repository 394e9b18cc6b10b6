set -euo pipefail
export HOME=$PWD XDG_RUNTIME_DIR=$PWD DBUS_SESSION_BUS_ADDRESS=disabled:
chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking \
    --user-data-dir="$PWD/profile" --virtual-time-budget=20000 --dump-dom "file://$COMPAT_DIR/page.html" 2>log.txt ||
    { echo "status $?"; tail -n 20 log.txt >&2; }
