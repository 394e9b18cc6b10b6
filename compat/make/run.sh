set -euo pipefail
for unit in $(seq 1 30); do
    printf '#include <stdlib.h>\n#include <string.h>\nint part_%d(int x) { char *copy = malloc(%d); memset(copy, x, %d); int sum = copy[0] + copy[%d]; free(copy); return sum * %d; }\n' \
        "$unit" "$((unit * 100))" "$((unit * 100))" "$((unit * 100 - 1))" "$unit" >"part$unit.c"
done
{
    for unit in $(seq 1 30); do echo "int part_$unit(int);"; done
    echo '#include <stdio.h>'
    echo 'int main(void) { long sum = 0;'
    for unit in $(seq 1 30); do echo "sum += part_$unit($unit);"; done
    echo 'printf("%ld\n", sum); return 0; }'
} >main.c
cp "$COMPAT_DIR/rules.mk" Makefile
make -s -j4 all
./program
sha256sum <program
touch part7.c
make -s -j4 all && make -q all && echo "up to date"
make -s -j4 -k broken 2>/dev/null || echo "a broken rule fails: $?"
make -s report
