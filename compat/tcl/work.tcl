# Lists, dictionaries, strings, bytecode, interpreters, big numbers, encodings.
set state 12345
proc random {limit} {
    global state
    set state [expr {($state * 1103515245 + 12345) % 2147483648}]
    return [expr {$state / 65536 % $limit}]
}
set words {}
for {set index 0} {$index < 30000} {incr index} {
    set word ""
    for {set left [random 12]} {$left >= 0} {incr left -1} { append word [format %c [expr {97 + [random 26]}]] }
    lappend words $word
    dict incr counts $word
}
puts "[dict size $counts] [lindex [lsort $words] 0] [lindex [lsort $words] end]"
set text [join $words " "]
puts "[string length $text] [regsub -all {[aeiou]+} $text X replaced] [string length $replaced]"
puts [llength [lsort -unique [split $replaced X]]]
for {set number 0} {$number < 40} {incr number} {
    set child [interp create]
    $child eval {proc twice {x} { return $x$x }}
    append made [string length [$child eval [list twice [string repeat ab $number]]]] " "
    interp delete $child
}
puts $made
puts [string length [expr {7 ** 5000}]]
foreach encoding {utf-8 unicode iso8859-1 shiftjis} {
    puts "$encoding [string length [encoding convertfrom $encoding [encoding convertto $encoding $text]]]"
}
proc deep {n} { if {$n == 0} { return {} } ; return [list $n [deep [expr {$n - 1}]]] }
puts [string length [deep 400]]
set matrix {}
for {set row 0} {$row < 200} {incr row} { lappend matrix [lrepeat 200 $row] }
for {set step 0} {$step < 20000} {incr step} { lset matrix [random 200] [random 200] $step }
puts [tcl::mathop::+ {*}[concat {*}$matrix]]
puts [zlib crc32 [zlib decompress [zlib compress $text 9]]]
