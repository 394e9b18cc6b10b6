set -euo pipefail
gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=pdfwrite -sOutputFile=work.pdf -dDeterministic "$COMPAT_DIR/work.ps"
for device in png16m pbmraw jpeggray; do
    gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=$device -r60 -dNumRenderingThreads=2 -sOutputFile="page%d.$device" work.pdf
    for page in page*."$device"; do echo "$page $(sha256sum <"$page")"; done
done
gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=txtwrite -sOutputFile=- work.pdf | sha256sum
gs -q -dBATCH -dNOPAUSE -dSAFER -sDEVICE=ps2write -sOutputFile=- work.pdf | grep -c showpage
