"""Xen's watchdog is armed under a number that the next agent finds, and never touched under any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_xen import FakeXen

from remus_agent.adapters.xen.control import Control
from remus_agent.adapters.xen.watchdog import XenWatchdog
from remus_agent.errors import HypervisorError


class Dom0:
    """A host, and agents that come and go on it."""

    def __init__(self, folder: Path) -> None:
        self.xen = FakeXen()
        self.run = folder / "run"
        self.run.mkdir()
        self.note = self.run / "watchdog.json"
        self.boot = folder / "boot_id"
        self.boot.write_text("5f0c\n")

    def agent(self) -> XenWatchdog:
        """Of a new agent."""
        return XenWatchdog(Control(self.xen.libs), self.note, self.boot)


@pytest.fixture
def dom0(tmp_path: Path) -> Dom0:
    return Dom0(tmp_path)


def test_it_is_armed_petted_and_disarmed(dom0: Dom0) -> None:
    watchdog = dom0.agent()
    assert not watchdog.armed
    watchdog.disarm()
    assert dom0.xen.count("xc_watchdog") == 0, "nothing to disarm"
    watchdog.arm(180)
    assert (watchdog.armed, dom0.xen.watchdogs) == (True, {1: 180})
    watchdog.pet(240)
    assert dom0.xen.watchdogs == {1: 240}
    watchdog.disarm()
    assert (watchdog.armed, dom0.xen.watchdogs, dom0.note.exists()) == (False, {}, False)


def test_the_next_agent_takes_it_over(dom0: Dom0) -> None:
    dom0.xen.watchdogs[1] = 30  # another program's
    dom0.agent().arm(180)
    after = dom0.agent()
    assert after.armed
    after.pet(200)
    assert dom0.xen.watchdogs == {1: 30, 2: 200}
    after.disarm()
    assert dom0.xen.watchdogs == {1: 30}
    assert not dom0.agent().armed


def test_a_note_of_another_boot_names_nothing(dom0: Dom0) -> None:
    dom0.agent().arm(180)
    dom0.boot.write_text("77aa\n")
    dom0.xen.watchdogs = {1: 30}
    after = dom0.agent()
    assert not after.armed
    after.arm(180)
    assert dom0.xen.watchdogs == {1: 30, 2: 180}


@pytest.mark.parametrize("text", ["", "{}", '{"id": 1}', '{"id": "1", "boot": "5f0c"}', '{"id":1,"boot":"5f0c","x":1}'])
def test_a_note_that_cannot_be_used_is_said_and_the_agent_starts(
    dom0: Dom0, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    dom0.note.write_text(text)
    assert not dom0.agent().armed
    assert "watchdog.json cannot be used" in caplog.text
    assert "resets this host soon" in caplog.text


def test_both_in_use_is_said_with_who_may_have_them(dom0: Dom0) -> None:
    dom0.xen.watchdogs = {1: 30, 2: 30}
    watchdog = dom0.agent()
    with pytest.raises(HypervisorError, match="No space left on device") as caught:
        watchdog.arm(180)
    assert not watchdog.armed
    assert caught.value.left == "it is not armed"
    assert "xenwatchdogd" in str(caught.value.hint)


def test_what_cannot_be_noted_is_not_armed(dom0: Dom0) -> None:
    dom0.run.rmdir()
    watchdog = dom0.agent()
    with pytest.raises(HypervisorError, match=r"watchdog\.json cannot be written"):
        watchdog.arm(180)
    assert (watchdog.armed, dom0.xen.watchdogs) == (False, {})


def test_one_that_somebody_else_has_disarmed_can_be_armed_again(dom0: Dom0) -> None:
    watchdog = dom0.agent()
    watchdog.arm(180)
    dom0.xen.watchdogs.clear()
    with pytest.raises(HypervisorError, match="Invalid argument") as caught:
        watchdog.pet(180)
    assert caught.value.left == "somebody has disarmed it"
    assert (watchdog.armed, dom0.note.exists()) == (False, False)
    watchdog.arm(180)
    dom0.xen.watchdogs.clear()
    watchdog.disarm()
    assert not watchdog.armed


def test_a_call_that_fails_leaves_it_armed_and_noted(dom0: Dom0) -> None:
    watchdog = dom0.agent()
    watchdog.arm(180)
    dom0.xen.failing.add("xc_watchdog")
    for act in (lambda: watchdog.pet(180), watchdog.disarm):
        with pytest.raises(HypervisorError, match="Input/output error") as caught:
            act()
        assert "reset" in str(caught.value.left)
        assert watchdog.armed
    dom0.xen.failing.clear()
    assert dom0.agent().armed


def test_never_without_time(dom0: Dom0) -> None:
    """To arm one with 0 seconds resets the machine at once."""
    watchdog = dom0.agent()
    with pytest.raises(ValueError, match="at once"):
        watchdog.arm(0)
    watchdog.arm(180)
    with pytest.raises(ValueError, match="at once"):
        watchdog.pet(0)
    assert dom0.xen.watchdogs == {1: 180}
