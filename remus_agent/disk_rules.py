"""Which disks of a guest are replicated, which pass through as they are, and why a guest with others cannot be protected. Decides
from what the hypervisor shows and what disks.toml says; touches nothing.

A guest names its protected disk as /dev/mapper/remus-<domain>-<vdev> and never as what is behind it, because only that device can
be changed below a running guest, and only that name means the same on both hosts.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remus_agent.disk_config import DEFAULT_PATH, MAPPER, Disk
from remus_agent.errors import RefusedError
from remus_agent.ports import Vbd

MAX_DISKS: Final = 16
"""Protected disks of one guest: each takes a connection, a journal and a thread."""

Resolve = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class DiskRefusal:
    """One disk that stands against protecting its guest. vdev: empty when it is about all of them. change: lines that say
    exactly what to change; the first line says where."""

    vdev: str
    reason: str
    change: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join((self.reason, *self.change))


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """protected: (domain, vdev) of each disk to replicate, in the order of the guest. ignored: read-only disks and CD images,
    which pass through. refusals: in the same order; nothing is protected while there are any."""

    protected: tuple[tuple[str, str], ...]
    ignored: tuple[Vbd, ...]
    refusals: tuple[DiskRefusal, ...]


def plan(domain: str, vbds: Sequence[Vbd], disks: Sequence[Disk], resolve: Resolve = os.path.realpath) -> DiskPlan:
    """Decide about the disks of a guest. vbds: as the hypervisor shows them. disks: of disks.toml, of all guests. resolve:
    follows symbolic links."""
    configured = {disk.vdev: disk for disk in disks if disk.domain == domain}
    mapped = {resolve(str(disk.mapper)): disk for disk in disks}
    protected: list[tuple[str, str]] = []
    ignored: list[Vbd] = []
    refusals: list[DiskRefusal] = []
    for vbd in vbds:
        if vbd.cdrom or not vbd.writable:
            ignored.append(vbd)
            continue
        refusal = _examine(domain, vbd, configured.get(vbd.vdev), mapped, resolve)
        if refusal is None:
            protected.append((domain, vbd.vdev))
        else:
            refusals.append(refusal)
    writable = len(protected) + len(refusals)
    if writable > MAX_DISKS:
        refusals.append(
            DiskRefusal(
                "",
                f"it has {writable} writable disks, and at most {MAX_DISKS} can be protected",
                (
                    f"change in the guest's xl.cfg: attach {writable - MAX_DISKS} of them with access r, or leave them out",
                ),
            )
        )
    return DiskPlan(tuple(protected), tuple(ignored), tuple(refusals))


def require(domain: str, found: DiskPlan) -> tuple[tuple[str, str], ...]:
    """The protected disks. Raises RefusedError with every reason and change at once."""
    if not found.refusals:
        return found.protected
    reasons = "".join(f"\n{number}. {refusal}" for number, refusal in enumerate(found.refusals, 1))
    raise RefusedError(
        f"{domain} cannot be protected because of its disks:{reasons}",
        operation="protect",
        domain=domain,
        left="nothing was changed",
        hint="make these changes on both hosts, run remus-disks up there, then shut the guest down and create it again; "
        "docs/operations.md explains it",
    )


def _examine(domain: str, vbd: Vbd, disk: Disk | None, mapped: dict[str, Disk], resolve: Resolve) -> DiskRefusal | None:
    wanted = MAPPER / f"remus-{domain}-{vbd.vdev}"
    behind = mapped.get(resolve(vbd.path))
    line = _line_change(vbd, wanted)
    entry = () if disk is not None else _entry(domain, vbd, wanted)
    if vbd.backend != "phy":
        reason = (
            f"its disk {vbd.vdev} is served by {vbd.backend}, and only block devices of dom0 (phy) can be protected"
        )
        return DiskRefusal(
            vbd.vdev, reason, (f"copy {vbd.path or 'its content'} to a block device, then", *line, *entry)
        )
    if vbd.shareable:
        return DiskRefusal(vbd.vdev, f"its disk {vbd.vdev} is attached as shareable (w!)", (*line, *entry))
    if disk is None:
        reason = f"its disk {vbd.vdev} ({vbd.path}) is not in {DEFAULT_PATH}"
        return DiskRefusal(vbd.vdev, reason, (*(line if vbd.path != str(wanted) else ()), *entry))
    if vbd.path == str(wanted):
        return None
    if behind == disk:
        reason = (
            f"its disk {vbd.vdev} is called {vbd.path}, which leads to {wanted} today, but on the other host or after a boot "
            "it may lead elsewhere"
        )
    elif behind is not None:
        reason = f"its disk {vbd.vdev} is {vbd.path}, which is the device for {behind.vdev} of {behind.domain}"
    elif resolve(vbd.path) == resolve(str(disk.device)):
        reason = f"its disk {vbd.vdev} is {vbd.path} itself, not the mapper device in front of it"
    else:
        reason = (
            f"its disk {vbd.vdev} is {vbd.path}, but {DEFAULT_PATH} says {disk.device}: "
            "find out which of the two holds its data and correct the other, then"
        )
    return DiskRefusal(vbd.vdev, reason, line)


def _line_change(vbd: Vbd, wanted: Path) -> tuple[str, ...]:
    """The entry of `disk = [...]`, as xl-disk-configuration(5) has it."""
    access = "w!" if vbd.shareable else "w"
    kind = "" if vbd.backend == "phy" else f",backendtype={vbd.backend.split()[0]}"
    return (
        "change in the guest's xl.cfg:",
        f"  old: '{vbd.path},raw,{vbd.vdev},{access}{kind}'",
        f"  new: '{wanted},raw,{vbd.vdev},w'",
    )


def _entry(domain: str, vbd: Vbd, wanted: Path) -> tuple[str, ...]:
    usable = vbd.backend == "phy" and vbd.path.startswith("/") and vbd.path != str(wanted)
    device = vbd.path if usable else "/dev/VOLUME-WITH-ITS-DATA"
    return (
        "add to the guest's entry of remus_guests in the inventory:",
        f'  disks: [{{vdev: {vbd.vdev}, device: "{device}"}}]',
        f"or, where {DEFAULT_PATH} is not written by playbooks/site.yml, there:",
        "  [[disk]]",
        f'  domain = "{domain}"',
        f'  vdev = "{vbd.vdev}"',
        f'  device = "{device}"',
    )
