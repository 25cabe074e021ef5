"""Structures have the sizes that Xen's headers give them, and only known releases are loaded."""

from __future__ import annotations

import ctypes as ct
from pathlib import Path

import pytest

from remus_agent.adapters.xen import libs
from remus_agent.adapters.xen import structs as s
from remus_agent.errors import HypervisorError, RefusedError


@pytest.mark.parametrize(
    ("structure", "size"),
    [
        (s.DomainInfo, 112),
        (s.HypercallBuffer, 40),
        (s.ShadowOpStats, 8),
        (s.CpuidLeaf, 24),
        (s.MsrEntry, 16),
        (s.PhysInfo, 112),
    ],
)
def test_sizes_are_those_of_the_c_compiler(structure: type[ct.Structure], size: int) -> None:
    assert ct.sizeof(structure) == size


def test_offsets_of_what_is_read() -> None:
    assert (s.DomainInfo.flags.offset, s.DomainInfo.tot_pages.offset, s.DomainInfo.handle.offset) == (4, 8, 76)
    assert s.PhysInfo.free_pages.offset == 48


def test_flags_of_a_suspended_domain() -> None:
    info = s.DomainInfo(flags=2 | 4 | s.Shutdown.SUSPEND << 16)
    assert (info.suspended, info.shutdown, info.hvm_container, info.dying, info.paused) == (True, 2, True, False, False)
    assert s.DomainInfo(flags=2).shutdown is None


def test_an_unknown_release_is_refused_by_name() -> None:
    with pytest.raises(RefusedError, match=r"Xen 4\.19 is not supported; 4\.17, 4\.20 are"):
        libs.load((4, 19))


def test_missing_libraries_are_named() -> None:
    with pytest.raises(HypervisorError, match=r"libxenctrl\.so\.4\.17"):
        libs.load((4, 17), only=frozenset({"xc_interface_open"}))


def test_versions_come_from_sysfs(tmp_path: Path) -> None:
    (tmp_path / "version").mkdir()
    (tmp_path / "type").write_text("xen\n")
    (tmp_path / "version/major").write_text("4\n")
    (tmp_path / "version/minor").write_text("20\n")
    assert libs.running_version(tmp_path) == (4, 20)


def test_a_host_without_xen_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(HypervisorError, match="cannot read Xen's version"):
        libs.running_version(tmp_path)
    (tmp_path / "type").write_text("kvm\n")
    with pytest.raises(RefusedError, match="runs on kvm"):
        libs.running_version(tmp_path)


def test_both_releases_know_every_function() -> None:
    tables = [
        {name: types for part in release.values() for name, types in part.items()} for release in libs.RELEASES.values()
    ]
    assert tables[0] == tables[1]
