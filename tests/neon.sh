#!/usr/bin/env bash
# Compiles the kernels and their tests for AArch64 and runs them under emulation: all of them on a processor that has everything, the products again on one
# without the int8 matrix product, and on one without the dot product either, to see that each takes the instructions it has. Not the GPU's
# kernels: one emulation inside another would take hours. Part of `make test`.
set -euo pipefail
if [ "$(uname -m)" = aarch64 ]; then
  echo "NEON: this machine has it, so every other test runs with it."
  exit 0
fi
if ! { command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64; } >/dev/null && ! tests/install_packages.sh neon; then
  echo "NEON: NOT TESTED. The Debian packages g++-aarch64-linux-gnu and qemu-user are needed and could not be installed."
  exit 0
fi
run=build/neon/tests/kernels
${MAKE:-make} --no-print-directory CXX=aarch64-linux-gnu-g++ MODE=release CUDA=0 B=build/neon $run
status=0
# emulate PROCESSOR BEST FILTER: BEST is the instruction set that must be chosen there.
emulate() {
  local log=build/neon/$1.log
  if BG_TEST_BACKENDS=cpu qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$1" $run -tc="$3" -tce="cuda*,mirror*" >"$log" 2>&1 && grep -q "up to $2 are tested" "$log"; then
    echo "NEON: emulated $1, up to $2: $(tail -n 1 "$log")"
  else
    cat "$log"
    echo "NEON: emulated $1 FAILED, or did not choose $2"
    return 1
  fi
}
emulate max neon_i8mm '*' & all=$!
emulate neoverse-n1 neon 'linear*,quantised*,kernels: names' || status=1
emulate cortex-a53 portable 'linear*,kernels: names' || status=1
wait $all || status=1
exit $status
