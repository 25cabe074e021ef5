#!/usr/bin/env bash
# Puts two of Debian's fence agents into a folder, for tests/conformance: fence_dummy, whose host is a file, and fence_ipmilan. The
# packages that ship them (fence-agents on Debian 12, one for each agent and fence-agents-common on 13) are downloaded and unpacked,
# never installed, because the first depends on the libraries of every cloud. What the two need of them, setup.sh installs.
#   tools/fetch_fence_agents.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
agents=(fence_dummy fence_ipmilan)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "fetch_fence_agents: fetching Debian's fence agents for tests/conformance"

download() {
  local packages=(fence-agents)
  if [[ -n "$(apt-cache pkgnames fence-agents-dummy)" ]]; then
    packages=(fence-agents-dummy fence-agents-ipmilan fence-agents-common)
  fi
  apt-get -o Acquire::Retries=12 download -qq -o APT::Sandbox::User=root "${packages[@]}" >/dev/null
}
if ! download 2>/dev/null; then  # no lists yet, or old ones
  [[ $EUID -ne 0 ]] || apt-get -o Acquire::Retries=12 update -qq
  download || { echo "fetch_fence_agents: apt cannot download fence-agents" >&2; exit 1; }
fi
for package in ./*.deb; do
  dpkg-deb --extract "$package" unpacked
done
rm -rf "$folder"
mkdir -p "$folder/lib"
for name in fencing.py "${agents[@]}"; do
  found=$(find unpacked -name "$name" -type f)
  [[ -n "$found" ]] || { echo "fetch_fence_agents: the packages do not ship $name" >&2; exit 1; }
  cp "$found" "$folder/lib/$name"
done
for agent in "${agents[@]}"; do
  cat >"$folder/$agent" <<END
#!/bin/sh
# $agent with its library from beside it.
PYTHONPATH="\${0%/*}/lib" exec /usr/bin/python3 "\${0%/*}/lib/$agent" "\$@"
END
  chmod 0755 "$folder/$agent"
done
