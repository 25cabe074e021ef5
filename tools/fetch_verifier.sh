#!/usr/bin/env bash
# Puts Xen's own checker of streams, verify-stream-v2, into a folder, for the conformance tests: the package that ships it
# (xen-utils-4.17 on Debian 12, xen-utils-4.20 on 13) is downloaded and unpacked, never installed. The checker and its
# modules are Python without dependencies; nothing else of the package is kept.
#   tools/fetch_verifier.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "fetch_verifier: fetching Xen's checker of streams for tests/conformance"

newest() { apt-cache pkgnames xen-utils-4. | grep -E '^xen-utils-4\.[0-9]+$' | sort -V | tail -n 1 || true; }
download() {
  package=$(newest)
  [[ -n "$package" ]] && apt-get -o Acquire::Retries=12 download -qq -o APT::Sandbox::User=root "$package" >/dev/null
}
if ! download 2>/dev/null; then  # no lists yet, or old ones
  [[ $EUID -ne 0 ]] || apt-get -o Acquire::Retries=12 update -qq
  download || { echo "fetch_verifier: apt cannot download a package xen-utils-4.x" >&2; exit 1; }
fi
dpkg-deb --extract ./*.deb unpacked
tool=$(find unpacked -name verify-stream-v2 -path '*/bin/*')
modules=$(find unpacked -path '*/python/xen' -type d)
[[ -n "$tool" && -n "$modules" ]] || { echo "fetch_verifier: $package does not ship verify-stream-v2" >&2; exit 1; }
rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib/python/xen"
cp "$tool" "$folder/bin/"
cp -r "$modules"/{__init__.py,util.py,migration} "$folder/lib/python/xen/"
