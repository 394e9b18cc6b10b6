set -euo pipefail
export PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
# Once with Python's own small-object allocator on top, once with every object straight from malloc.
for allocator in pymalloc malloc; do
    echo "== $allocator"
    PYTHONMALLOC=$allocator python3 "$COMPAT_DIR/round_trip.py"
    PYTHONMALLOC=$allocator python3 "$COMPAT_DIR/threads.py"
done
python3 "$COMPAT_DIR/processes.py"
