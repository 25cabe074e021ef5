#!/usr/bin/env bash
# Puts Debian's prometheus and promtool into a folder, for tests/conformance: the package is downloaded and unpacked, never installed,
# because it would start Prometheus as a service. Both are single binaries that need nothing else.
#   tools/fetch_prometheus.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "fetch_prometheus: fetching Debian's Prometheus for tests/conformance"

download() {
  apt-get -o Acquire::Retries=12 download -qq -o APT::Sandbox::User=root prometheus >/dev/null
}
if ! download 2>/dev/null; then  # no lists yet, or old ones
  [[ $EUID -ne 0 ]] || apt-get -o Acquire::Retries=12 update -qq
  download || { echo "fetch_prometheus: apt cannot download prometheus" >&2; exit 1; }
fi
dpkg-deb --extract ./*.deb unpacked
for tool in promtool prometheus; do
  [[ -x unpacked/usr/bin/$tool ]] || { echo "fetch_prometheus: the package does not ship $tool" >&2; exit 1; }
done
rm -rf "$folder"
mkdir -p "$folder"
cp unpacked/usr/bin/{promtool,prometheus} "$folder/"
