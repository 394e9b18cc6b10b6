set -euo pipefail
# The page of the browser's case, which is not to be written twice.
export HOME=$PWD XDG_RUNTIME_DIR=$PWD/runtime QT_QPA_PLATFORM=offscreen
mkdir -m 700 runtime
for width in 400 1000; do
    wkhtmltoimage --quiet --width "$width" "$COMPAT_DIR/../chromium/page.html" page.png
    sha256sum <page.png
done
wkhtmltopdf --quiet "$COMPAT_DIR/../chromium/page.html" page.pdf
head -c 5 page.pdf
