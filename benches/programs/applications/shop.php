<?php
// Arrays as records and maps, objects with references to each other, strings, regular expressions.
final class Item
{
    public array $tags = [];
    public ?Item $next = null;

    public function __construct(public int $number, public string $name) {}
}

$items = [];
$sum = 0;
for ($round = 0; $round < 6; $round++) {
    $previous = null;
    for ($number = 0; $number < 40000; $number++) {
        $item = new Item($number, 'item ' . ($number * 7919 % 10007) . " of $round");
        for ($tag = 0; $tag < $number % 5; $tag++) {
            $item->tags["tag$tag"] = str_repeat(chr(97 + $number % 26), $tag * 3);
        }
        $item->next = $previous;
        $previous = $item;
        $items[$number * 31 % 60000] = $item;
    }
    $names = array_map(fn (Item $item): string => strrev($item->name), $items);
    sort($names);
    $text = implode("\n", $names);
    $sum += preg_match_all('/(\d+) meti/', $text, $found) + count(array_unique($found[1]));
    $sum += count(array_filter($items, fn (Item $item): bool => isset($item->tags['tag2'])));
}
echo $sum, ' ', count($items), "\n";
