set -euo pipefail
seq 1 20000 | sed 's/$/ the quick brown fox jumps over the lazy dog/' >text.txt
status=0
TERM=dumb HOME=$PWD vim -u NONE -N -i NONE -n -es -S "$COMPAT_DIR/work.vim" text.txt </dev/null || status=$?
echo "status $status"
cat result.txt
sha256sum <text.txt
