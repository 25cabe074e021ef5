"""The lab's key, its ``ssh_config``, and commands on a host."""

import subprocess
from pathlib import Path

from lab.command import run
from lab.errors import LabError
from lab.spec import MACHINES, HostSpec, Paths, Settings

SHARED = Path("/run/remus-lab-ssh")
"""Where shared connections listen: a path below the lab's own folder could be too long for a socket."""


def ensure_key(paths: Paths) -> bool:
    """Make the lab's key pair; True when it had to be made."""
    if paths.key.exists():
        return False
    paths.state.mkdir(parents=True, exist_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "remus-lab", "-f", str(paths.key)])
    return True


def public_key(paths: Paths) -> str:
    """The base64 word of the lab's public key."""
    return paths.key.with_suffix(".pub").read_text().split()[1]


def render_config(paths: Paths, settings: Settings) -> str:
    """Text of the lab's ``ssh_config``."""
    blocks = [f"Host {host.name}\n  HostName 127.0.0.1\n  Port {settings.ssh_port(host)}\n" for host in MACHINES]
    common = f"""Host *
  User root
  IdentityFile "{paths.key}"
  IdentitiesOnly yes
  # The hosts are made anew for every lab and reached on loopback only.
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  GlobalKnownHostsFile /dev/null
  LogLevel ERROR
  ConnectTimeout 30
  ServerAliveInterval 10
  ServerAliveCountMax 6
  # A login costs an emulated host seconds. The shared connection ends with the host.
  ControlMaster auto
  ControlPath {SHARED}/%C
  ControlPersist 120
"""
    return "".join(blocks) + common


def ensure_config(paths: Paths, settings: Settings) -> bool:
    """Write ``ssh_config``; True when that changed it."""
    SHARED.mkdir(mode=0o700, exist_ok=True)
    text = render_config(paths, settings)
    if paths.ssh_config.exists() and paths.ssh_config.read_text() == text:
        return False
    paths.ssh_config.write_text(text)
    return True


def try_command(paths: Paths, host: HostSpec, command: str, timeout: float) -> str | None:
    """Output of COMMAND on HOST, or None when it failed or took longer than TIMEOUT seconds."""
    words = ["ssh", "-F", str(paths.ssh_config), "-o", "BatchMode=yes", host.name, command]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError as error:
        raise LabError("ssh is not installed (package openssh-client)") from error
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
