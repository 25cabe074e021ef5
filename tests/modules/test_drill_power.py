"""remus_drill_power: a host that was fenced is on in the end, however late and often it was switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.remus import drill_fences

from remus_agent.config import Timeouts
from tests.modules.conftest import RunModule

FENCE = """#!/bin/sh
folder={folder}
action=$(sed -n 's/^action=//p')
echo "$action" >> $folder/log
test ! -e $folder/broken || exit 1
case $action in
on)
    read -r left < $folder/again
    test "$left" = 0 || {{ echo $((left - 1)) > $folder/again; exit 0; }}
    echo on > $folder/power;;
status)
    read -r left < $folder/late
    test "$left" = 0 || {{ echo $((left - 1)) > $folder/late; test "$left" != 1 || echo off > $folder/power; }}
    grep -q on $folder/power || exit 2;;
esac
"""


class Alpha:
    """A host with a fence agent. again: so many times it does not go on when it is told to. late: with this look, counted from 1,
    somebody else switches it off."""

    def __init__(self, folder: Path, power: str, again: int = 0, late: int = 0) -> None:
        self.folder = folder
        for name, words in (("power", power), ("again", again), ("late", late)):
            (folder / name).write_text(f"{words}\n")
        program, toml = folder / "fence_alpha", folder / "agent.toml"
        program.write_text(FENCE.format(folder=folder))
        program.chmod(0o755)
        toml.write_text(f'[timeouts]\ndetect = 0.1\n[fencing.alpha]\nagent = "{program}"\ntimeout = 5\n')
        self.options: dict[str, Any] = {"fence": "alpha", "configuration": str(toml), "timeout": 20}

    @property
    def told(self) -> list[str]:
        """Everything but looks."""
        return [word for word in (self.folder / "log").read_text().split() if word != "status"]

    @property
    def power(self) -> str:
        """As it is."""
        return (self.folder / "power").read_text().strip()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for real."""
    monkeypatch.setattr(drill_fences, "TAKES", -4.8)
    monkeypatch.setattr(drill_fences, "PAUSE", 0.05)


def test_a_host_that_is_on_is_left_alone(run_module: RunModule, tmp_path: Path) -> None:
    alpha = Alpha(tmp_path, "on")
    result = run_module("remus_drill_power", **alpha.options)
    assert (result["changed"], result["agent"], alpha.told) == (False, f"{tmp_path}/fence_alpha", [])


def test_a_host_that_is_off_is_switched_on_until_it_is(run_module: RunModule, tmp_path: Path) -> None:
    alpha = Alpha(tmp_path, "off", again=2)
    assert run_module("remus_drill_power", **alpha.options)["changed"] is True
    assert (alpha.power, alpha.told) == ("on", ["on", "on", "on"])


def test_one_that_is_fenced_late_is_switched_on_once_more(run_module: RunModule, tmp_path: Path) -> None:
    """Each guest that is taken over has the host fenced, and the last one may come after the host was seen on."""
    alpha = Alpha(tmp_path, "off", late=3)
    assert run_module("remus_drill_power", **alpha.options)["changed"] is True
    assert (alpha.power, alpha.told) == ("on", ["on", "on"])


def test_how_long_a_takeover_that_has_begun_may_still_switch_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_fences, "TAKES", 20)
    alpha = Alpha(tmp_path, "on")
    found = drill_fences.configured(alpha.options["configuration"], "alpha")
    assert found["quiet"] == 0.1 + 20 + 5
    assert Timeouts().detect == drill_fences.DETECT


@pytest.mark.parametrize(("broken", "says"), [(False, "says off"), (True, r"says nothing (it ended with 1)")])
def test_one_that_does_not_go_on_is_named_with_the_command(
    run_module: RunModule, tmp_path: Path, broken: bool, says: str
) -> None:
    alpha = Alpha(tmp_path, "off", again=1000)
    if broken:
        (tmp_path / "broken").touch()
    result = run_module("remus_drill_power", **alpha.options | {"timeout": 1})
    assert result["failed"]
    assert result["msg"] == f"the fence agent's status {says} after 1 s"
    assert result["by_hand"].endswith(f"action=on; }} | timeout --signal=KILL 5 {tmp_path}/fence_alpha")


@pytest.mark.parametrize("power", ["on", "off"])
def test_check_mode_looks_and_switches_nothing(run_module: RunModule, tmp_path: Path, power: str) -> None:
    alpha = Alpha(tmp_path, power)
    result = run_module("remus_drill_power", check=True, **alpha.options)
    assert (result["changed"], alpha.told, alpha.power) == (power == "off", [], power)


def test_what_is_known_without_asking_anybody(run_module: RunModule, tmp_path: Path) -> None:
    alpha = Alpha(tmp_path, "off")
    known = {**alpha.options, "state": "known"}
    result = run_module("remus_drill_power", **known)
    assert (result["changed"], result["agent"]) == (False, f"{tmp_path}/fence_alpha")
    assert not (tmp_path / "log").exists()
    result = run_module("remus_drill_power", **known | {"fence": "beta"})
    assert (result["changed"], result["agent"], result["by_hand"]) == (False, "", "")
    missing = run_module("remus_drill_power", **known | {"configuration": str(tmp_path / "none")})
    assert "none cannot be read: " in missing["msg"]
    assert "Next: run playbooks/site.yml" in missing["msg"]
    none = run_module("remus_drill_power", **alpha.options | {"fence": "beta"})
    assert "no fence agent is configured here for beta. Next: set remus_fencing of it" in none["msg"]
