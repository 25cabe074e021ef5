"""Names, types and devices of domains, read from xenstore and Xen without a process start.

Paths: docs/misc/xenstore-paths.pandoc; /libxl/<domid> is libxl's own (tools/libs/light/libxl_create.c,
libxl_device.c, libxl_disk.c)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from remus_agent.adapters.xen.control import Control
from remus_agent.adapters.xen.structs import PAGE_SIZE
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import DomainNotFound, HypervisorError
from remus_agent.ports import Domain, GuestType, Vbd, Vif

NET: Final = Path("/sys/class/net")
TAP_SUFFIX: Final = "-emu"
OWN_BACKENDS: Final = "/local/domain/0/backend/"


def names(store: XenStore) -> dict[int, str]:
    """Names of all domains by id, dom0 left out."""
    found: dict[int, str] = {}
    for entry in store.directory("/local/domain"):
        name = store.read(f"/local/domain/{entry}/name") if entry.isdigit() and entry != "0" else None
        if name:
            found[int(entry)] = name
    return found


def named(store: XenStore, name: str) -> list[int]:
    """Ids of the domains with this name (one at most, unless a toolstack was careless)."""
    return [domid for domid, found in names(store).items() if found == name]


def rename(store: XenStore, domid: int, old: str, new: str) -> None:
    """Give a domain another name, as libxl_domain_rename does. Raises HypervisorError if a domain has the
    name."""
    if named(store, new):
        raise HypervisorError(
            f"another domain is called {new} on this host",
            operation="rename the copy",
            domain=new,
            left=f"the copy is paused as {old} (domain {domid})",
            hint=f"find out which of the two is right; `xl destroy {domid}` discards the copy",
        )
    vm = store.read(f"/local/domain/{domid}/vm")
    store.write(f"/local/domain/{domid}/name", new)
    if vm:
        store.write(f"{vm}/name", new)


def find(control: Control, store: XenStore, name: str) -> Domain:
    """The domain with this name. Raises DomainNotFound with the names that exist."""
    running = names(store)
    for domid, found in running.items():
        if found == name:
            return describe(control, store, domid)
    others = ", ".join(sorted(running.values())) or "none"
    raise DomainNotFound(f"no domain {name} runs here; there are: {others}", domain=name)


def name_of(control: Control, store: XenStore, uuid: str) -> str | None:
    """What a domain of this UUID is called; by its number as long as the toolstack has not named it. None when there is none."""
    for info in control.domains():
        if info.uuid == uuid and not info.dying:
            return store.read(f"/local/domain/{info.domain}/name") or f"domain {info.domain}"
    return None


def describe(control: Control, store: XenStore, domid: int) -> Domain:
    """Everything the services need of a domain. Raises DomainNotFound when it is gone or going."""
    info = control.info(domid)
    name = store.read(f"/local/domain/{domid}/name")
    if info is None or info.dying or not name:
        raise DomainNotFound(f"domain {domid} is gone")
    kind = store.read(f"/libxl/{domid}/type") or ("pvh" if info.hvm_container else "pv")
    try:
        guest_type = GuestType(kind)
    except ValueError as error:
        raise HypervisorError(f"the toolstack calls its type {kind!r}", domain=name) from error
    vifs = tuple(_vif(store, domid, int(devid)) for devid in _devices(store, domid, "vif"))
    return Domain(
        name=name,
        domid=domid,
        uuid=info.uuid,
        guest_type=guest_type,
        memory_kib=int(info.tot_pages) * (PAGE_SIZE // 1024),
        vifs=vifs,
        disks=tuple(_vbd(store, domid, devid) for devid in _devices(store, domid, "vbd")),
        taps=_taps(vifs) if guest_type is GuestType.HVM else (),
    )


def device_kinds(store: XenStore, domid: int) -> list[str]:
    """Kinds of the domain's devices (vif, vbd, pci, console...)."""
    return sorted(store.directory(f"/libxl/{domid}/device"))


def replicated_ids(store: XenStore, domid: int) -> tuple[list[str], ...]:
    """Numbers of its disks and of its interfaces: two requests."""
    return tuple(_devices(store, domid, kind) for kind in ("vbd", "vif"))


def may_suspend(store: XenStore, domid: int) -> bool:
    """False if the guest's kernel has said what it can do and suspending was not among it. Linux says so
    only when it boots (drivers/xen/manage.c, setup_shutdown_watcher): a guest that was restored or failed
    over has said nothing to this host's xenstore, and it could suspend where it came from."""
    features = f"/local/domain/{domid}/control/feature-"
    return store.read(f"{features}suspend") == "1" or store.read(f"{features}poweroff") != "1"


def _devices(store: XenStore, domid: int, kind: str) -> list[str]:
    return sorted((entry for entry in store.directory(f"/libxl/{domid}/device/{kind}") if entry.isdigit()), key=int)


def _backend(store: XenStore, domid: int, kind: str, devid: str | int) -> str:
    return store.read(f"/libxl/{domid}/device/{kind}/{devid}/backend") or ""


def _vif(store: XenStore, domid: int, devid: int) -> Vif:
    backend = _backend(store, domid, "vif", devid)
    device = store.read(f"{backend}/vifname") or f"vif{domid}.{devid}"
    return Vif(
        devid=devid,
        device=device,
        mac=store.read(f"{backend}/mac") or "",
        bridge=store.read(f"{backend}/bridge") or "",
        index=_index(device),
    )


def _index(device: str) -> int:
    """What the kernel knows a network device by; 0 when there is none of that name."""
    try:
        return int((NET / device / "ifindex").read_text())
    except OSError:
        return 0


def _taps(vifs: tuple[Vif, ...]) -> tuple[Vif, ...]:
    """QEMU's own devices of these interfaces, named by libxl_nic.c (libxl__device_nic_devname)."""
    taps = (replace(vif, device=f"{vif.device}{TAP_SUFFIX}", emulated=True) for vif in vifs)
    return tuple(replace(tap, index=_index(tap.device)) for tap in taps if (NET / tap.device).exists())


def _vbd(store: XenStore, domid: int, devid: str) -> Vbd:
    """Read from the backend alone: the guest can write to what is its frontend's."""
    backend = _backend(store, domid, "vbd", devid)
    kind = store.read(f"{backend}/type") or "unknown"
    path = store.read(f"{backend}/params") or ""
    mode = store.read(f"{backend}/mode") or "w"
    if kind != "phy":
        path = path.partition(":")[2] or path  # format:path
    if not backend.startswith(OWN_BACKENDS):
        kind = f"{kind} of another domain"
    return Vbd(
        vdev=store.read(f"{backend}/dev") or devid,
        path=path,
        writable=mode.startswith("w"),
        cdrom=store.read(f"{backend}/device-type") == "cdrom",
        backend=kind,
        shareable=mode.endswith("!"),
    )
