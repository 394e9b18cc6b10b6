set -euo pipefail
gcc -g -O0 -pthread "$COMPAT_DIR/debuggee.c" -o debuggee
# What is compared is what a person reads there, without addresses and numbers of threads and processes.
gdb -nx -batch -x "$COMPAT_DIR/commands.gdb" ./debuggee 2>&1 |
    grep -vE '^\[(New|Thread|Inferior|Switching)|libthread_db|^warning:|^Download' | sed -E "s/0x[0-9a-f]+/ADDRESS/g; s|$PWD|.|g; s|$COMPAT_DIR|.|g; s/(Thread|LWP|process) [0-9A-Z]+/\1 N/g"
