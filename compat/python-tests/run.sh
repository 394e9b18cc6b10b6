set -euo pipefail
# Python's own tests, from Debian's package, in Debian's interpreter. Not test_threading and test_concurrent_futures, which fail
# now and then on a busy machine, whatever the allocator.
python=$(ls /usr/bin/python3.[0-9]* | grep -E '/python3\.[0-9]+$' | sort -V | tail -n 1)
tests="test_list test_dict test_set test_bytes test_unicode test_long test_array test_memoryview test_buffer test_deque
    test_heapq test_re test_json test_pickle test_struct test_zlib test_bz2 test_lzma test_hashlib test_sqlite3 test_gc
    test_weakref test_thread test_queue test_ctypes test_mmap test_fork1 test_decimal
    test_generators test_asyncgen test_xml_etree_c test_sort test_itertools"
export PYTHONDONTWRITEBYTECODE=1
status=0
# shellcheck disable=SC2086
PYTHONMALLOC=malloc "$python" -m test -j2 --timeout 500 -u none $tests >log.txt 2>&1 || status=$?
# What failed, and how many tests there were; not how long they took.
sed -n '/^[0-9]* tests\? \(failed\|skipped\|OK\)/,/^$/p' log.txt | sort
grep -E '^(Tests result|Result):|^All [0-9]+ tests OK' log.txt || true
echo "status $status"
