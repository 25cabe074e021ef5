"""Devices that come and go under a protected guest, by the toolstack's own commands.

What a disk that nobody replicates makes the guest answer is not let out; an interface that comes later is held and taken in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pair import agent
from pair.guest import answers
from pair.hosts import GUEST, on
from pair.protection import ensure_protected, ensure_unprotected, wait_protected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

IMAGE = "/var/tmp/remus-attached.img"  # noqa: S108 - in dom0, for root alone
NEW_DISK = "xvdz"


@pytest.fixture
def state(lab: dict[str, Any]) -> agent.Status:
    """The guest on alpha, protected to beta."""
    return ensure_protected()


@pytest.fixture
def device() -> Iterator[str]:
    """A block device in alpha's dom0."""
    found = on("alpha", f"truncate -s 16M {IMAGE} && losetup --find --show {IMAGE}").strip()
    yield found
    on("alpha", f"losetup --detach {found}; rm -f {IMAGE}")


def reason() -> str:
    """Why the guest is not protected just now."""
    return agent.status("alpha").get("reason") or ""


def held_interfaces() -> list[str]:
    """Interfaces of ours that hold what the guest sends, one for each of the guest's."""
    names = on("alpha", "ls /sys/class/net").split()
    return sorted(name for name in names if name.startswith("rb"))


def test_a_disk_that_nobody_replicates_keeps_the_guest_silent(state: agent.Status, device: str) -> None:
    on("alpha", f"xl block-attach {GUEST} phy:{device} {NEW_DISK} w")
    try:
        until("it is named", reason, lambda said: f"{NEW_DISK}: {device} was attached" in said, timeout=60)
        assert f"xl block-detach {GUEST} {NEW_DISK}" in reason()
        assert not answers(), "the guest answered a client"
        assert not agent.protected(agent.status("alpha"))
    finally:
        on("alpha", f"xl block-detach {GUEST} {NEW_DISK} --force || xl block-detach {GUEST} {NEW_DISK}")
    again = wait_protected()
    assert agent.session(again) != agent.session(state)
    until("the guest answers", answers, timeout=60)


def test_an_interface_that_comes_later_is_held_and_taken_in(state: agent.Status) -> None:
    before = held_interfaces()
    on("alpha", f"xl network-attach {GUEST} bridge=xenbr0 mac=00:16:3e:00:99:01")
    try:
        until("it is held", held_interfaces, lambda found: len(found) == len(before) + 1, timeout=60)
        covered = until(
            "another session covers it",
            lambda: agent.status("alpha"),
            lambda seen: agent.protected(seen) and agent.session(seen) != agent.session(state),
            timeout=900,
        )
        until("the guest answers", answers, timeout=60)
    finally:
        on("alpha", f"xl network-detach {GUEST} 1")
    until(
        "its end is noticed, and a session without it has begun",
        lambda: agent.status("alpha"),
        lambda seen: (
            agent.protected(seen) and agent.session(seen) not in (agent.session(state), agent.session(covered))
        ),
        timeout=900,
    )
    until("the guest answers", answers, timeout=60)
    ensure_unprotected()  # what held the frames of an interface that is gone goes with the rest
    assert held_interfaces() == []
