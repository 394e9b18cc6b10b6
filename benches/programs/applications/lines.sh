# A shell that does the work itself: arrays, associative arrays, strings, functions, a read loop.
declare -A seen
total=0
list=()
for ((line = 1; line <= 60000; line++)); do
    key="k$((line * 7919 % 5003))"
    seen[$key]="${seen[$key]:-}x"
    if ((${#seen[$key]} > 20)); then unset "seen[$key]"; fi
    list+=("$key:$line")
    if ((${#list[@]} == 1000)); then
        joined="${list[*]//k/K}"
        total=$((total + ${#joined}))
        list=()
    fi
done
while read -r word rest; do total=$((total + ${#word} + ${#rest})); done < <(printf 'word%d and the rest %s\n' {1..30000})
echo "${#seen[@]} $total"
