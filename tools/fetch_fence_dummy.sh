#!/usr/bin/env bash
# Puts Debian's fence agent for tests, fence_dummy, into a folder, for tests/conformance: the packages that ship it (fence-agents
# on Debian 12, fence-agents-dummy and fence-agents-common on 13) are downloaded and unpacked, never installed, because the first
# depends on the libraries of every cloud. What fence_dummy needs of them, setup.sh installs.
#   tools/fetch_fence_dummy.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "fetch_fence_dummy: fetching Debian's fence agent for tests/conformance"

download() {
  local packages=(fence-agents)
  if [[ -n "$(apt-cache pkgnames fence-agents-dummy)" ]]; then
    packages=(fence-agents-dummy fence-agents-common)
  fi
  apt-get -o Acquire::Retries=12 download -qq -o APT::Sandbox::User=root "${packages[@]}" >/dev/null
}
if ! download 2>/dev/null; then  # no lists yet, or old ones
  [[ $EUID -ne 0 ]] || apt-get -o Acquire::Retries=12 update -qq
  download || { echo "fetch_fence_dummy: apt cannot download fence-agents" >&2; exit 1; }
fi
for package in ./*.deb; do
  dpkg-deb --extract "$package" unpacked
done
agent=$(find unpacked -name fence_dummy -type f)
library=$(find unpacked -name fencing.py -type f)
[[ -n "$agent" && -n "$library" ]] || { echo "fetch_fence_dummy: the packages do not ship fence_dummy" >&2; exit 1; }
rm -rf "$folder"
mkdir -p "$folder/lib"
cp "$agent" "$folder/lib/fence_dummy"
cp "$library" "$folder/lib/"
cat >"$folder/fence_dummy" <<'END'
#!/bin/sh
# fence_dummy with its library from beside it.
PYTHONPATH="${0%/*}/lib" exec /usr/bin/python3 "${0%/*}/lib/fence_dummy" "$@"
END
chmod 0755 "$folder/fence_dummy"
