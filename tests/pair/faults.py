"""Seeded faults in an agent's environment, by a drop-in of its unit that does not survive a reboot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pair import agent
from pair.hosts import on
from pair.wait import until

UNIT = "remus-agent.service"
FOLDER = f"/run/systemd/system/{UNIT}.d"
DROP_IN = f"{FOLDER}/90-seeded-fault.conf"


def seed(host: str, fault: str) -> None:
    """Set the fault for the agent's next start."""
    text = f"[Service]\nEnvironment=REMUS_SEEDED_FAULT={fault}\n"
    on(host, f"mkdir -p {FOLDER} && cat > {DROP_IN} && systemctl daemon-reload", stdin=text)


def clear(host: str) -> None:
    """No fault from the agent's next start on."""
    on(host, f"rm -f {DROP_IN} && systemctl daemon-reload")


def restart(host: str, timeout: float = 120) -> None:
    """Restart the agent and wait until it answers."""
    on(host, f"systemctl reset-failed {UNIT} 2>/dev/null; systemctl restart {UNIT}", timeout=timeout)
    until(f"the agent of {host} answers", lambda: agent.answers(host), timeout=timeout)


@contextlib.contextmanager
def seeded(host: str, fault: str) -> Iterator[None]:
    """The agent of a host restarted with a fault; restarted without it afterwards."""
    seed(host, fault)
    try:
        restart(host)
        yield
    finally:
        clear(host)
        restart(host)


def main_pid(host: str) -> int:
    """Process id of the agent; 0 when it does not run."""
    return int(on(host, f"systemctl show -P MainPID {UNIT}").strip() or 0)


def process_state(host: str, pid: int) -> str:
    """State letter of a process on a host (`T`: stopped); empty when it is gone."""
    text = on(host, f"cat /proc/{pid}/stat 2>/dev/null || true")
    return text.rpartition(")")[2].split()[0] if text.strip() else ""
