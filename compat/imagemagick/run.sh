set -euo pipefail
# By this name, because `convert` may be anything.
magick() { convert-im6.q16 "$@"; }
export MAGICK_THREAD_LIMIT=2
strip=(-strip -define png:exclude-chunks=date,time,tIME)
magick -size 640x480 plasma:fractal -seed 7 -blur 0x1 discarded.png
magick -size 500x400 gradient:red-blue -swirl 120 "${strip[@]}" one.png
magick one.png -resize 200% -sharpen 0x2 -colors 64 "${strip[@]}" two.png
magick one.png two.png -resize 300x300! -compose multiply -composite "${strip[@]}" three.png
magick -size 300x300 pattern:checkerboard -distort perspective '0,0 20,30 300,0 280,10 0,300 10,280 300,300 290,300' "${strip[@]}" four.png
for picture in one two three four; do
    echo "$picture $(identify-im6.q16 -format '%wx%h %k %#' "$picture.png")"
    magick "$picture.png" -quality 80 "$picture.jpg"
    magick "$picture.jpg" -format '%# jpeg\n' info:
done
magick one.png two.png three.png -resize 100x100! -delay 10 -loop 0 -layers optimize moving.gif
magick moving.gif -coalesce -append -format '%wx%h %#\n' info:
magick four.png -morphology Dilate Octagon -fft +depth -delete 1 -format '%wx%h\n' info:
