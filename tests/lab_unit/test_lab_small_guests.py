"""Small guests of the lab tests: their configuration, made from that of the lab's own guest, and room for them on its hosts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab.guest import TYPES, configuration
from lab.recipe import Recipe
from lab.spec import DOM0_MIB, Settings
from pair.small_guests import MEMORY_MIB, OWN_ADDRESS, SmallGuest, memory_needed

XEN_MIB = 32
"""What Xen keeps for itself: 24 of 2048 MiB, of more it is more."""


def test_each_has_a_configuration_of_its_own() -> None:
    made = subprocess.run(
        ["sed", SmallGuest(3, "beta").edits()],
        input=configuration(Recipe(13), "pvh"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    own = {
        'name = "small3"',
        'ramdisk = "/var/lib/remus-small-guests/initrd.img"',
        f"memory = {MEMORY_MIB}",
        f"maxmem = {MEMORY_MIB}",
        'vif = ["mac=00:16:3e:77:00:71,bridge=xenbr0"]',
    }
    assert own <= set(made.splitlines())
    assert 'extra = "remus_test_guest=113 console=hvc0 ' in made
    assert "redis1" not in made


def test_each_finds_its_address_on_its_command_line(tmp_path: Path) -> None:
    line = tmp_path / "cmdline"
    line.write_text("remus_test_guest=113 console=hvc0 quiet\n")
    words = f"echo 10.77.0.{OWN_ADDRESS}/24".replace("/proc/cmdline", str(line))
    assert subprocess.check_output(["sh", "-c", words], text=True) == "10.77.0.113/24\n"


def test_each_has_the_memory_for_which_the_guest_is_made() -> None:
    """Linux unpacks an initial file system into half of its memory at most."""
    assert TYPES["pvh"][0] <= MEMORY_MIB


@pytest.mark.parametrize("debian", DOM0_MIB)
def test_ten_of_them_and_their_copies_fit_beside_dom0(debian: int) -> None:
    assert Settings().memory_mib - DOM0_MIB[debian] - XEN_MIB >= memory_needed(10)
