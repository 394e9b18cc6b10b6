set -euo pipefail
export HOME=$PWD GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_PAGER=cat LC_ALL=C
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.com
clock=1700000000
commit() {
    clock=$((clock + 60))
    GIT_AUTHOR_DATE="$clock +0000" GIT_COMMITTER_DATE="$clock +0000" git commit -q -m "$1"
}
git init -q -b main work
cd work
for directory in $(seq 1 20); do
    mkdir "d$directory"
    for file in $(seq 1 25); do
        for line in $(seq 1 $((file * 3))); do echo "line $line of $directory/$file"; done >"d$directory/f$file.txt"
    done
done
git add .
commit "500 files"
for round in $(seq 1 12); do
    for directory in $(seq 1 20); do echo "round $round" >>"d$directory/f$round.txt"; done
    git mv "d$round/f25.txt" "d$round/renamed.txt"
    git add -A
    commit "round $round"
done
git checkout -q -b side HEAD~6
for directory in $(seq 1 20); do sed -i '1s/line/LINE/' "d$directory/f20.txt"; done
git add -A
commit "side"
git checkout -q main
GIT_AUTHOR_DATE="1700009999 +0000" GIT_COMMITTER_DATE="1700009999 +0000" git merge -q --no-edit side
git gc -q --prune=now
git repack -q -a -d -f --window=20 --threads=2
git fsck --strict 2>/dev/null
git log --stat -M --format='%H %an %ad %s' --date=iso
git diff HEAD~13 HEAD | sha256sum
git blame --date=iso d3/f5.txt | sha256sum
git grep -c 'round 1[0-2]' | sort
git -c advice.detachedHead=false clone -q "$PWD" ../copy
git -C ../copy rev-parse HEAD 'HEAD^{tree}'
git -C ../copy archive HEAD | sha256sum
git status --short
