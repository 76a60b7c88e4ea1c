#!/usr/bin/env bash
# Names the Debian packages that building and testing need and that this machine lacks, and installs them where apt-get may.
# With the argument neon: those of tests/neon.sh.
set -eu
wanted=(make g++ libutf8proc-dev libjpeg62-turbo-dev libtiff-dev libhdf5-dev libstb-dev zlib1g-dev nlohmann-json3-dev doctest-dev)
[ "${1-}" = neon ] && wanted=(g++-aarch64-linux-gnu qemu-user)
missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "This machine lacks: ${missing[*]}"
if ! command -v apt-get >/dev/null; then
  echo "There is no apt-get here. Install the equivalents of these Debian packages and run make again." >&2
  exit 1
fi
as=()
if [ "$(id -u)" -ne 0 ]; then
  if sudo -n true 2>/dev/null; then as=(sudo -n); else
    echo "Installing needs root. Run:  sudo apt-get install ${missing[*]}   and then make again." >&2
    exit 1
  fi
fi
echo "Installing them with apt-get."
export DEBIAN_FRONTEND=noninteractive
"${as[@]}" apt-get update -qq
"${as[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
