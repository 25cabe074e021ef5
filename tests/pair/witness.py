"""The witness beside the pair: there for a while, and the pair afterwards as it was without one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from pair.guest import come_home
from pair.hosts import HOSTS, PROJECT, heal_links, labctl, run


def play(inventories: Sequence[str], *words: str) -> None:
    """A playbook with its options, as an operator gives it, with these inventories beside each other."""
    beside = [word for name in inventories for word in ("-i", str(PROJECT / "inventories" / name))]
    run(["env", "-u", "ANSIBLE_CONFIG", "ansible-playbook", *beside, *words], timeout=1200)


def site(*inventories: str) -> None:
    """Everything up to "ready to protect", with these inventories. Takes minutes."""
    play(inventories, "playbooks/site.yml")


def whole() -> None:
    """All links and both hosts are there, and the guest is fresh on alpha, protected by nobody."""
    heal_links()
    for host in HOSTS:
        labctl("start", host)
    come_home()


@contextlib.contextmanager
def witnessed(*, fenced: bool = False) -> Iterator[None]:
    """gamma runs etcd, and both agents know it; whatever happens, the pair is whole and without it afterwards. fenced: and each
    switches the other's host off, over IPMI, before it activates anything of it. The BMCs stay, and nobody asks them."""
    labctl("up", "--witness", *(["--bmc"] if fenced else []))
    try:
        site("lab", "lab_witness", *(["lab_fencing"] if fenced else []))
        yield
    finally:
        whole()
        site("lab")
