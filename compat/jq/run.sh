set -euo pipefail
jq -n '[range(3000) | {id: ., name: ("n" + (. * 7919 % 10007 | tostring)), tags: [range(. % 5)], deep: {a: {b: (. % 13)}}}]' >data.json
sha256sum <data.json
jq 'group_by(.deep.a.b) | map({key: .[0].deep.a.b, count: length, sum: (map(.id) | add)})' -c data.json
jq -r '.[] | select(.id % 997 == 0) | [.id, .name, (.tags | length)] | @csv' data.json
jq '[.[] | .name | gsub("[0-4]"; "x")] | unique | length' data.json
jq -c '[paths] | length' <(jq '.[0:300]' data.json)
jq --stream -c 'select(length == 2) | .[1]' data.json | sha256sum
jq -n 'reduce range(20000) as $i ({}; .["k" + ($i % 1000 | tostring)] += $i) | add'
