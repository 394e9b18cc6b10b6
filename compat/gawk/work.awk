# Strings, fields, arrays of arrays, sorting, regular expressions, big numbers where built in.
BEGIN {
    srand(7)
    state = 12345
    for (i = 0; i < 60000; i++) {
        state = (state * 1103515245 + 12345) % 2147483648
        word = sprintf("%x", int(state / 65536) % 20011)
        counts[word]++
        lengths[length(word)][word] = i
        text = text " " word
        if (length(text) > 6000) { total += split(text, fields, /[a-f]+/); gsub(/[0-9]+/, "<&>", text); size += length(text); text = "" }
    }
    n = asorti(counts, names)
    print n, names[1], names[n], total, size
    for (l in lengths) sum += length(lengths[l]) * l
    print sum
    PROCINFO["sorted_in"] = "@val_num_desc"
    for (word in counts) { if (++shown > 5) break; top = top counts[word] " " }
    print top
    for (i = 0; i < 3000; i++) { line = line "x"; lines[i] = line }
    for (i in lines) { bytes += length(lines[i]); delete lines[i] }
    print bytes, length(lines), toupper(substr("hakmem", 1, 3)), strftime("%Y", 0, 1)
    while (("seq 5000" | getline number) > 0) { $0 = number " " number * 2; NF = 5; $5 = "end"; joined += length($0) }
    print joined
}
