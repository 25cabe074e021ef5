"""Protection of the lab's guest: into it, out of it, and a host's death without a host's reboot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pair import agent
from pair.guest import answers, console, copies, ensure_running, running_copies
from pair.hosts import GUEST, HOSTS, CommandFailed, heal_links, labctl, on, powered
from pair.wait import TooLate, until

SEED_TIMEOUT = 900.0
"""Seconds for a first or repeated full copy in emulation, on a busy machine."""
NOT_YET = (CommandFailed, agent.AgentError)
"""While an agent restarts, questions to it fail."""


def require_agents() -> None:
    """Both hosts on, both agents answering. Raises when not: such a pair proves nothing and must not pass."""
    for host in HOSTS:
        if not powered(host):
            raise CommandFailed(f"{host} is off; bring the lab up")
        if not agent.answers(host):
            raise CommandFailed(f"no agent answers on {host}; run ansible-playbook playbooks/site.yml first")


def unprotected(state: agent.Status) -> bool:
    """Whether nobody protects the domain on this host, or tries to. One that was activated here is told as active again once its
    protection from here has ended."""
    return state["role"] == "none" or state["state"] in ("failed", "unprotected", "active")


def wait_protected(timeout: float = SEED_TIMEOUT, host: str = "alpha", guest: str = GUEST) -> agent.Status:
    """Wait until a guest's protection on HOST has a commit in its present session. Raises at once when it has ended."""
    state = until(
        f"{guest} protected on {host}",
        lambda: agent.status(host, guest),
        lambda seen: agent.protected(seen) or unprotected(seen),
        timeout=timeout,
        every=3,  # each look is work for the host that has to copy meanwhile
        passing=NOT_YET,
    )
    if not agent.protected(state):
        said = console(host, guest)
        raise CommandFailed(f"the protection of {guest} has ended: {state}\nThe guest's console:\n{said}")
    return state


def ensure_protected() -> agent.Status:
    """The guest on alpha, protected to beta; a state that is so already is left alone."""
    require_agents()
    heal_links()
    ensure_running("alpha")
    if unprotected(agent.status("alpha")):
        agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, domain=GUEST, peer="beta", wait=False)
    return wait_protected()


def ensure_unprotected() -> agent.Status:
    """The guest on alpha, protected by nobody; a guest that runs there is left alone."""
    require_agents()
    heal_links()
    ensure_running("alpha")
    for host in HOSTS:
        if agent.status(host)["role"] != "none":
            agent.ask(host, "unprotect", timeout=300, domain=GUEST, force=True)
    return until(
        f"{GUEST} unprotected",
        lambda: agent.status("alpha"),
        unprotected,
        timeout=120,
        passing=NOT_YET,
    )


def at_home() -> bool:
    """Whether the guest runs on alpha, nowhere else, and answers; then it is also protected by nobody when this returns."""
    try:
        if [(copy.host, copy.name) for copy in running_copies()] != [("alpha", GUEST)] or not answers():
            return False
        ensure_unprotected()
        until("beta has no copy", lambda: copies("beta"), lambda found: not found, timeout=60)
    except (CommandFailed, agent.AgentError, TooLate):
        return False
    return True


def die(host: str = "alpha", guests: Sequence[str] = (GUEST,)) -> None:
    """What the outside sees of a dying host, without its reboot: its links are cut, its agent is killed where it
    stands, its guests are gone. The links stay cut."""
    labctl("cut", "replication")
    labctl("cut", "guests", host)
    on(
        host,
        "systemctl kill --signal=KILL remus-agent.service; systemctl stop remus-agent.service;"
        f" printf '%s\\n' {' '.join(guests)} | xargs -n 1 xl destroy",
        timeout=180,
    )


def take_over(host: str = "beta", old: str = "alpha", timeout: float = 600, guest: str = GUEST) -> agent.Status:
    """Failover by the control socket; the agent itself makes sure that its primary is silent."""
    fenced = {"host": old, "method": "test", "evidence": "the test destroyed the guest there"}
    return agent.ask(host, "failover", timeout=timeout, domain=guest, fenced=fenced)


@contextlib.contextmanager
def cut(network: str = "replication", host: str | None = None) -> Iterator[None]:
    """A link cut for a while."""
    labctl("cut", network, *([host] if host else []))
    try:
        yield
    finally:
        labctl("heal", network, *([host] if host else []))
