<?php
// Arrays, strings, objects in cycles, generators, serialisation, regular expressions.
mt_srand(7, MT_RAND_MT19937);
$words = [];
for ($index = 0; $index < 60000; $index++) {
    $word = '';
    for ($left = mt_rand(1, 12); $left > 0; $left--) $word .= chr(mt_rand(97, 122));
    $words[] = $word;
}
$counts = array_count_values($words);
arsort($counts);
echo count($counts), ' ', hash('sha256', implode(',', $words)), "\n";
$text = json_encode(array_chunk($words, 7));
echo hash('sha256', $text), ' ', count(json_decode($text, true)), "\n";
echo hash('sha256', serialize(unserialize(serialize($counts)))), "\n";
class Node { public $next; public $filler; public function __construct($filler) { $this->filler = $filler; } }
for ($round = 0; $round < 50; $round++) {
    $first = $last = new Node('');
    for ($index = 0; $index < 500; $index++) { $last->next = new Node(str_repeat('x', $index)); $last = $last->next; }
    $last->next = $first;
    unset($first, $last);
}
echo gc_collect_cycles() >= 0 ? "collected\n" : "not collected\n";
function numbers($limit) { for ($number = 0; $number < $limit; $number++) yield $number => str_repeat('y', $number % 50); }
$sum = 0;
foreach (numbers(50000) as $number => $filler) $sum += strlen($filler) * ($number % 3);
echo $sum, ' ', preg_match_all('/[aeiou]{2,}/', $text), ' ', strlen(preg_replace_callback('/[a-f]+/', fn($m) => strtoupper($m[0]) . '-', $text)), "\n";
usort($words, fn($a, $b) => strlen($a) <=> strlen($b) ?: strcmp($a, $b));
echo $words[0], ' ', end($words), ' ', strlen(str_repeat($text, 20)), "\n";
$heap = new SplPriorityQueue();
foreach ($words as $position => $word) $heap->insert($word, crc32($word) % 1000 * 100000 + $position);
echo hash('crc32b', implode(' ', iterator_to_array($heap, false))), "\n";
