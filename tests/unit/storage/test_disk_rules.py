"""A guest with a disk that cannot be protected is told exactly what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent import disk_config, disk_rules
from remus_agent.disk_config import Disk
from remus_agent.disk_rules import MAX_DISKS, DiskPlan, plan, require
from remus_agent.errors import RefusedError
from remus_agent.ports import Vbd

DEVICE = "/dev/vg0/db1"
MAPPED = "/dev/mapper/remus-db1-xvda"
LINKS = {"/dev/mapper/remus-db1-xvda": "/dev/dm-3", "/dev/by-id/x": "/dev/dm-3", "/dev/vg0/db1": "/dev/dm-0"}


def disk(vdev: str = "xvda", device: str = DEVICE, domain: str = "db1") -> Disk:
    return Disk(domain, vdev, Path(device), Path(f"/m-{vdev}"), Path(f"/j-{vdev}"))


def decide(*vbds: Vbd, disks: tuple[Disk, ...] = (disk(),), domain: str = "db1") -> DiskPlan:
    return plan(domain, vbds, disks, resolve=lambda path: LINKS.get(path, path))


def test_disks_behind_their_mapper_devices_are_protected_in_order() -> None:
    found = decide(
        Vbd("xvda", MAPPED),
        Vbd("xvdc", "/srv/cd.iso", writable=False, cdrom=True, backend="qdisk"),
        Vbd("xvdd", "", writable=True, cdrom=True),
        Vbd("xvde", "/dev/vg0/ro", writable=False),
        Vbd("xvda1", "/dev/mapper/remus-db1-xvda1"),
        disks=(disk("xvda1", "/dev/vg0/db1-part"), disk(), disk("xvda", "/dev/vg0/web1", "web1")),
    )
    assert found.protected == (("db1", "xvda"), ("db1", "xvda1"))
    assert [vbd.vdev for vbd in found.ignored] == ["xvdc", "xvdd", "xvde"]
    assert require("db1", found) == found.protected


def test_a_guest_without_disks_has_none() -> None:
    assert require("db1", decide()) == ()


OLD_AND_NEW = (f"  old: '{DEVICE},raw,xvda,w'", f"  new: '{MAPPED},raw,xvda,w'")


@pytest.mark.parametrize(
    ("vbd", "disks", "reason", "lines"),
    [
        (Vbd("xvda", DEVICE), (disk(),), f"is {DEVICE} itself, not the mapper device", OLD_AND_NEW),
        (
            Vbd("xvda", DEVICE),
            (),
            "is not in /etc/remus/disks.toml",
            (*OLD_AND_NEW, f'  disks: [{{vdev: xvda, device: "{DEVICE}"}}]', "  [[disk]]", f'  device = "{DEVICE}"'),
        ),
        (Vbd("xvda", MAPPED), (), "is not in /etc/remus/disks.toml", ('  device = "/dev/VOLUME-WITH-ITS-DATA"',)),
        (
            Vbd("xvda", "/dev/by-id/x"),
            (disk(),),
            f"is called /dev/by-id/x, which leads to {MAPPED} today",
            ("  old: '/dev/by-id/x,raw,xvda,w'", OLD_AND_NEW[1]),
        ),
        (Vbd("xvda", "/dev/dm-3"), (disk(),), "may lead elsewhere", (OLD_AND_NEW[1],)),
        (
            Vbd("xvda", "/dev/mapper/remus-web1-xvda"),
            (disk(), disk("xvda", "/dev/vg0/web1", "web1")),
            "which is the device for xvda of web1",
            (OLD_AND_NEW[1],),
        ),
        (Vbd("xvda", "/dev/vg9/x"), (disk(),), f"is /dev/vg9/x, but /etc/remus/disks.toml says {DEVICE}", (OLD_AND_NEW[1],)),
        (
            Vbd("xvda", MAPPED, shareable=True),
            (disk(),),
            r"attached as shareable (w!)",
            (f"  old: '{MAPPED},raw,xvda,w!'", OLD_AND_NEW[1]),
        ),
        (
            Vbd("xvda", "/srv/db1.img", backend="qdisk"),
            (disk(),),
            "served by qdisk, and only block devices of dom0",
            ("copy /srv/db1.img to a block device, then", "  old: '/srv/db1.img,raw,xvda,w,backendtype=qdisk'", OLD_AND_NEW[1]),
        ),
        (Vbd("xvda", "/srv/db1.img", backend="tap"), (), "served by tap", ('  device = "/dev/VOLUME-WITH-ITS-DATA"',)),
        (Vbd("xvda", "nbd:x", backend="standalone"), (disk(),), "served by standalone", (OLD_AND_NEW[1],)),
        (Vbd("xvda", MAPPED, backend="phy of another domain"), (disk(),), "phy of another domain", ()),
    ],
)  # fmt: skip
def test_every_refusal_names_the_change(vbd: Vbd, disks: tuple[Disk, ...], reason: str, lines: tuple[str, ...]) -> None:
    found = decide(vbd, disks=disks)
    assert found.protected == ()
    (refusal,) = found.refusals
    assert reason in refusal.reason
    assert set(lines) <= set(refusal.change)


def test_all_refusals_at_once_in_order() -> None:
    found = decide(Vbd("xvdb", "/dev/vg0/b"), Vbd("xvda", MAPPED), Vbd("xvdc", "/c.img", backend="qdisk"))
    assert found.protected == (("db1", "xvda"),)
    with pytest.raises(RefusedError) as caught:
        require("db1", found)
    message = caught.value.message
    assert message.index("\n1. its disk xvdb") < message.index("\n2. its disk xvdc")
    assert "remus-disks up" in (caught.value.hint or "")


def test_at_most_so_many() -> None:
    names = [f"xvd{letter}" for letter in "abcdefghijklmnopq"]
    disks = tuple(disk(name, f"/dev/{name}") for name in names)
    vbds = [Vbd(name, f"/dev/mapper/remus-db1-{name}") for name in names]
    assert len(decide(*vbds[:MAX_DISKS], disks=disks).protected) == MAX_DISKS
    (refusal,) = decide(*vbds, disks=disks).refusals
    assert "17 writable disks, and at most 16" in str(refusal)
    assert "1 of them" in str(refusal)


paths = st.sampled_from([DEVICE, MAPPED, "/dev/by-id/x", "/srv/x.img", "", "/dev/mapper/remus-db1-xvdb"])
vbds = st.builds(
    Vbd, st.sampled_from(["xvda", "xvdb", "hda1"]), paths, st.booleans(), st.booleans(),
    st.sampled_from(["phy", "qdisk"]), st.booleans(),
)  # fmt: skip


@given(st.lists(vbds, unique_by=lambda vbd: vbd.vdev), st.sets(st.sampled_from(["xvda", "xvdb"])))
def test_each_disk_gets_exactly_one_answer(found: list[Vbd], configured: set[str]) -> None:
    disks = tuple(disk(vdev, f"/dev/{vdev}") for vdev in sorted(configured))
    answer = decide(*found, disks=disks)
    named = [vdev for _, vdev in answer.protected] + [refusal.vdev for refusal in answer.refusals]
    assert sorted(named + [vbd.vdev for vbd in answer.ignored]) == sorted(vbd.vdev for vbd in found)
    for vbd in found:
        if ("db1", vbd.vdev) in answer.protected:
            assert (vbd.backend, vbd.writable, vbd.path) == ("phy", True, f"/dev/mapper/remus-db1-{vbd.vdev}")
    for refusal in answer.refusals:
        assert any(line.startswith(("  new: ", "  disks: ")) for line in refusal.change)


def test_what_is_asked_for_is_what_the_list_takes(tmp_path: Path) -> None:
    """The entry of a refusal, taken as it is, makes the guest protectable."""
    (refusal,) = decide(Vbd("xvda", DEVICE), disks=()).refusals
    start = refusal.change.index("  [[disk]]")
    disks = disk_config.parse("\n".join(refusal.change[start:]), tmp_path, tmp_path)
    new = next(line for line in refusal.change if line.startswith("  new: ")).split("'")[1].split(",")[0]
    assert disk_rules.plan("db1", [Vbd("xvda", new)], disks).protected == (("db1", "xvda"),)
