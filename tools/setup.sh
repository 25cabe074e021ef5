#!/usr/bin/env bash
# Brings a machine to where this directory can be worked with. Running it again does nothing when nothing is missing.
#   tools/setup.sh               a fresh Debian 12 or 13 for `make`: Debian packages, and .venv with everything
#   tools/setup.sh --controller  any Linux for playbooks on real hosts: .venv with Ansible alone, no packages
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=requirements/dev.txt
case "${1:-}" in
  "") ;;
  --controller) requirements=requirements/controller.txt ;;
  *)
    echo "setup: unknown option $1; --controller, or nothing" >&2
    exit 2
    ;;
esac

packages=(
  python3 python3-venv
  debootstrap qemu-system-x86 qemu-utils e2fsprogs cpio gzip xz-utils zstd  # the lab's images and hosts
  spin gcc libc6-dev  # the model checker of tests/formal, and what compiles the searches of its models
  libnbd-bin python3-libnbd  # real NBD clients, which tests/conformance lets loose on the write tap's protocol
  etcd-server etcd-client  # a real witness for tests/conformance
  python3-pexpect python3-pycurl ipmitool  # what real fence agents need, for tests/conformance
  openipmi  # the lab's BMCs, and those of its tests
  iproute2 nftables redis-tools postgresql-client openssh-client ca-certificates rsync git
)
missing=()
[[ $requirements == requirements/dev.txt ]] || packages=()
for package in "${packages[@]}"; do
  [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  if [[ $EUID -ne 0 ]]; then
    echo "setup: these packages are missing and installing them needs root: ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o Acquire::Retries=12 update -qq
  # Debian's packages would start etcd as a service, for everybody on this machine, and IPMI's drivers, for hardware that need not be
  # there; the tests start their own. One that is there already is somebody's.
  for service in etcd-server:etcd openipmi:openipmi; do
    unit=/etc/systemd/system/${service#*:}.service
    if [[ " ${missing[*]} " == *" ${service%:*} "* && ! -e $unit && ! -L $unit ]]; then
      mkdir -p /etc/systemd/system
      ln -s /dev/null "$unit"
    fi
  done
  apt-get -o Acquire::Retries=12 install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

wanted=$(sha256sum "$requirements" tools/link_module_utils.py | sha256sum | cut -d' ' -f1)
if [[ ! -x .venv/bin/python || "$(cat .venv/remus-requirements 2>/dev/null || true)" != "$wanted" ]]; then
  python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "setup: Python 3.11 to 3.13 is needed, this is $(python3 --version)" >&2
    exit 1
  }
  python3 -c 'import ensurepip, venv' 2>/dev/null || {
    echo "setup: this Python has no module venv; on Debian: apt-get install python3-venv" >&2
    exit 1
  }
  # pip and apt pause longer before each try: a network that is away for some minutes delays this and does not end it.
  echo "setup: building the virtual environment .venv (a minute or two; a network that does not answer is tried for eight)"
  python3 -m venv --clear .venv
  .venv/bin/pip install --quiet --retries 12 --disable-pip-version-check --require-hashes -r "$requirements"
  .venv/bin/python tools/link_module_utils.py
  echo "$wanted" >.venv/remus-requirements
fi
