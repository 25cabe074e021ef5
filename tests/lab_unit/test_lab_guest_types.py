"""One guest, as each of its types: the xl.cfg that the hosts get."""

from __future__ import annotations

import pytest
from lab.guest import TYPES, configuration
from lab.recipe import Recipe


@pytest.mark.parametrize("kind", TYPES)
def test_a_configuration_says_its_type_and_leaves_nothing_open(kind: str) -> None:
    lines = configuration(Recipe(13), kind).splitlines()
    assert f'type = "{kind}"' in lines
    assert not [line for line in lines if "$" in line]
    assert ("vnc = 0" in lines) == (kind == "hvm")


@pytest.mark.parametrize(("kind", "memory"), [("pvh", 192), ("pv", 192), ("hvm", 256)])
def test_a_disk_is_xvda_and_brings_memory_for_what_is_on_it(kind: str, memory: int) -> None:
    lines = configuration(Recipe(13), kind, "/dev/mapper/remus-redis1-xvda").splitlines()
    assert 'disk = ["format=raw,vdev=xvda,access=rw,target=/dev/mapper/remus-redis1-xvda"]' in lines
    assert {f"memory = {memory}", f"maxmem = {memory}"} <= set(lines)
    assert not [line for line in configuration(Recipe(13), kind).splitlines() if line.startswith("disk")]


def test_memory_stays_constant() -> None:
    for kind, (memory, _) in TYPES.items():
        lines = configuration(Recipe(12), kind).splitlines()
        assert {f"memory = {memory}", f"maxmem = {memory}"} <= set(lines)
