#!/usr/bin/env bash
# Fifty agents and one fault a second for five minutes (`bench/soak.py`): agents killed, stopped and out of memory; a full disk, a
# slow one, no descriptors, a clock that jumps; the host killed. Each agent runs again, once, and is supervised. The share of the time
# in which they answered is asserted far below what a quiet machine shows: it says that nothing broke down, not how fast we are.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/suites/support/fleet.sh
need python3
need cc
[ -n "$(compgen -G '/usr/lib/*/faketime/libfaketime.so.1')" ] || need libfaketime

python3 -B bench/soak.py --alicia "$binary" --minutes "${SUITE_MINUTES:-5}" --seed "${SUITE_SEED:-20261120}" --at-least 99
echo "soak: passed in $SECONDS s"
