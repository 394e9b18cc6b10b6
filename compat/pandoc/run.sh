set -euo pipefail
awk 'BEGIN { for (s = 1; s <= 60; s++) { print "# Section " s "\n"; for (p = 1; p <= 12; p++) { for (w = 1; w <= 60; w++) printf "word%d *em%d* ", (s * p * w) % 997, w; print "[link](http://localhost/" p ")\n" } print "| a | b |\n|---|---|\n| " s " | `code` |\n" } }' >text.md
for format in html latex rst docbook json; do
    echo "$format $(pandoc -f markdown -t "$format" text.md | sha256sum)"
done
SOURCE_DATE_EPOCH=1 pandoc -f markdown -o text.docx text.md
pandoc -f docx -t plain text.docx | sha256sum
pandoc -f html -t markdown <(pandoc -f markdown -t html text.md) | sha256sum
