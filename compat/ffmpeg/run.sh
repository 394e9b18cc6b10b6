set -euo pipefail
run() { ffmpeg -nostdin -hide_banner -loglevel error "$@"; }
source=(-f lavfi -i "testsrc2=size=320x240:rate=25:duration=4" -f lavfi -i "sine=frequency=440:duration=4")
run "${source[@]}" -c:v mpeg4 -threads 2 -q:v 4 -c:a aac -flags +bitexact -fflags +bitexact one.mp4
run -i one.mp4 -map 0:v -f framemd5 - | grep -v '^#' | sha256sum
run "${source[@]}" -c:v ffv1 -threads 2 -c:a flac -flags +bitexact -fflags +bitexact two.mkv
run -i two.mkv -vf "scale=160:120,hue=s=0,edgedetect" -threads 2 -f framemd5 - | grep -v '^#' | sha256sum
run -i two.mkv -filter_complex "[0:v]split=3[a][b][c];[a]negate[d];[b]boxblur[e];[d][e][c]hstack=inputs=3" -an -f framemd5 - | grep -v '^#' | sha256sum
run -i two.mkv -vn -af "aecho=0.8:0.9:500:0.3,aresample=22050" -f md5 -
for number in 1 2 3; do run -ss "$number" -i one.mp4 -frames:v 1 "frame$number.png"; done
sha256sum frame?.png
ffprobe -v error -show_entries stream=codec_name,nb_frames -of csv one.mp4
