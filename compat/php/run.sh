set -euo pipefail
# Once with its own pools on top, once with every object straight from malloc.
php -n -d memory_limit=-1 "$COMPAT_DIR/work.php"
USE_ZEND_ALLOC=0 php -n -d memory_limit=-1 "$COMPAT_DIR/work.php"
