# The system's share of `paced` ($1) as it is, by that without any purging, printed as its time: the switch is hakmem's own, other
# allocators run twice alike. Each is run three times, and the smallest counts.
set -euo pipefail
system() {
    local least=999999 ticks
    for _ in 1 2 3; do
        ticks=$(TIMEFORMAT=%S; { time env LD_PRELOAD="${BENCH_LIBRARY:-}" "$@" >sum.txt; } 2>&1 | tr -d .)
        ticks=$((10#$ticks))
        if ((ticks < least)); then least=$ticks; fi
    done
    echo "$least"
}
as_it_is=$(system "$1")
never=$(system env HAKMEM_PURGE_DELAY_MS=never "$1")
cat sum.txt
awk -v it="$as_it_is" -v never="$never" 'BEGIN { printf "figures: seconds=%.3f system_s=%.3f\n", (it + 1) / (never + 1), it / 1000 }'
