# Hashes of hashes, strings that grow, regular expressions, sorting.
use strict;
use warnings;

my ($random, %count, %next, @lines) = (1);
sub below { $random = ($random * 1103515245 + 12345) % 2147483648; return int($random / 65536) % $_[0] }

for my $line (1 .. 60000) {
    push @lines, join ' ', map { 'w' . below(1 + below(9000)) } 1 .. 12;
}
for my $line (@lines) {
    my $before = '';
    for my $word (split / /, $line) {
        $count{$word}++;
        $next{$before}{$word}++ if length $before;
        $before = $word;
    }
}
my @often = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
my $text = join "\n", @lines;
my $changed = ($text =~ s/\bw(\d)(\d)\b/$2w$1/g);
my %groups;
push @{ $groups{ length $_ } }, reverse $_ for @often;
my $sum = 0;
$sum += scalar(keys %{ $next{$_} }) for @often;
printf "%d %s %d %d %d\n", scalar(@often), "@often[0 .. 4]", $changed, $sum, scalar(keys %groups);
