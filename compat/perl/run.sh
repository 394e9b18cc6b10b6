set -euo pipefail
export PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
perl "$COMPAT_DIR/words.pl"
