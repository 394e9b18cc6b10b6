# Records split into fields, arrays with text as index, strings that are built up.
BEGIN {
    for (line = 1; line <= 250000; line++) {
        key = "k" (line * 7919 % 30011)
        text = key "," line % 97 "," line * 31 % 1009 ",name " line
        fields = split(text, field, ",")
        count[field[1]]++
        sum[field[1]] += field[3]
        last[field[1]] = last[field[1]] substr(field[4], 6, 3)
        if (length(last[field[1]]) > 60) delete last[field[1]]
    }
    total = asorti(count, sorted)
    for (at = 1; at <= total; at++) {
        shown = sprintf("%s=%d/%d", sorted[at], count[sorted[at]], sum[sorted[at]])
        gsub(/[13579]/, "<&>", shown)
        size += length(shown)
    }
    print total, size, length(last)
}
