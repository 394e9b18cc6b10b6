set -euo pipefail
head -c 3000000 /dev/zero | openssl enc -aes-256-ctr -nosalt -K "$(printf '%064d' 7)" -iv "$(printf '%032d' 1)" >data
for digest in sha256 sha512 sha3-256 blake2b512 md5; do openssl dgst -$digest data; done
for cipher in aes-256-cbc chacha20 camellia-128-cbc; do
    openssl enc -$cipher -pbkdf2 -iter 1000 -S 0102030405060708 -k secret -in data -out data.enc
    openssl enc -d -$cipher -pbkdf2 -iter 1000 -S 0102030405060708 -k secret -in data.enc | sha256sum
done
# Keys are new in every run: what is compared is that they work.
for kind in "RSA -pkeyopt rsa_keygen_bits:2048" "EC -pkeyopt ec_paramgen_curve:P-256" ED25519; do
    # shellcheck disable=SC2086
    openssl genpkey -algorithm $kind -out key.pem 2>/dev/null
    openssl pkey -in key.pem -pubout -out public.pem
    openssl pkey -in key.pem -check -noout
    head -c 3000 data >small
    openssl pkeyutl -sign -rawin -inkey key.pem -in small -out signature
    openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in small -sigfile signature
    openssl req -x509 -new -key key.pem -subj /CN=hakmem -days 2 -out certificate.pem
    openssl verify -CAfile certificate.pem certificate.pem
done
for round in $(seq 20); do openssl x509 -in certificate.pem -noout -subject; done | sort | uniq -c
for number in 17 561 1000003 170141183460469231731687303715884105727; do openssl prime "$number"; done
openssl rand -hex 16 | wc -c
openssl list -cipher-algorithms | wc -l
