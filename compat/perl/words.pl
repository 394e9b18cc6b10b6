# Hashes, regular expressions, sorting, growing strings, and processes by fork.
use strict;
use warnings;

my $state = 12345;
sub number { my $limit = shift; $state = ($state * 1103515245 + 12345) % 2147483648; return int($state / 8) % $limit }

my @syllables = qw(ka ki ku ke ko sa shi su se so ta chi tsu te to na ni nu ne no);
my (%count, $text);
for (1 .. 200_000) {
    my $word = join '', map { $syllables[number(scalar @syllables)] } 1 .. 1 + number(3);
    $count{$word}++;
    $text .= "$word ";
}
print scalar(keys %count), " words, ", length($text), " characters\n";
my @frequent = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "$_ $count{$_}\n" for @frequent[0 .. 9];

my $matches = 0;
$matches++ while $text =~ /\b(\w*)shi(\w*)\b/g;
(my $changed = $text) =~ s/(k[aiueo])(s\w+)/<$2:$1>/g;
print "$matches matches, ", length($changed), " characters after the substitution\n";

my %nested;
for my $n (1 .. 100_000) {
    push @{ $nested{ number(500) }{ number(20) } }, "v$n" x (1 + number(5));
    delete $nested{ number(500) } if $n % 10 == 0;
}
my $leaves = 0;
for my $outer (sort keys %nested) { $leaves += @$_ for values %{ $nested{$outer} } }
print "$leaves leaves\n";

my $sum = 0;
for my $child (1 .. 20) {
    my $pid = fork();
    die "fork: $!" unless defined $pid;
    if ($pid == 0) { my @held = map { "x" x $_ } 1 .. 1000; exit(@held % 200) }
    waitpid($pid, 0);
    $sum += $? >> 8;
}
print "children: $sum\n";
my @sorted = sort { $a <=> $b } map { number(1_000_000) } 1 .. 200_000;
print "$sorted[0] $sorted[100_000] $sorted[-1]\n";
