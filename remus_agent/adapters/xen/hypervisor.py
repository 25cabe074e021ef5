"""One host's Xen and toolstack: `ports.Hypervisor`.

Answers come from libxenctrl and xenstore in one thread; `xl` is started only where libxl's own knowledge is
needed (a domain's configuration, destroying, restoring)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from remus_agent.adapters.ledger import Ledger
from remus_agent.adapters.xen import domains, libs, toolstack
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.control import Control, DomainControl
from remus_agent.adapters.xen.device_model import PROGRAM, DeviceModel
from remus_agent.adapters.xen.helper_source import HelperSource
from remus_agent.adapters.xen.save_helper import helper_path
from remus_agent.adapters.xen.source import XenSource
from remus_agent.adapters.xen.target import XenTarget
from remus_agent.adapters.xen.xen_thread import XenThread
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.errors import DomainNotFound, HypervisorError, RefusedError
from remus_agent.ports import Domain, GuestType, HostFacts
from remus_agent.protocol.stream import writer
from remus_agent.protocol.stream.preamble import parse_preamble, renamed

log = logging.getLogger(__name__)

PROTECTED_DEVICES: Final = frozenset({"vif", "vbd", "console", "vfb", "vkbd"})
"""Device kinds whose state is in the guest's memory and in the toolstack's configuration, nowhere else. vfb and vkbd are
how an HVM guest's screen and keyboard show in xenstore."""

FRESH_SECONDS: Final = 2.0
"""For how long what the devices of a domain lead to is taken as read, while it has the same devices."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A domain as it was read last. at: monotonic seconds."""

    at: float
    ids: tuple[list[str], ...]
    domain: Domain


class XenHypervisor:
    """`ports.Hypervisor` of this dom0. supervisor: socket of the supervisor, needed to take checkpoints. ledger: notes what is
    there for which guest.

    Raises RefusedError on a Xen release that is not supported, HypervisorError outside a dom0."""

    def __init__(self, supervisor: Path, ledger: Ledger | None = None) -> None:
        self._supervisor = supervisor
        self._ledger = ledger or Ledger()
        self._libs = libs.load()
        self._helper = helper_path(self._libs.version)
        self._device_model = PROGRAM
        self._control = Control(self._libs)
        self._store = XenStore(self._libs)
        self._shown: dict[int, _Shown] = {}
        self._thread = XenThread("hypervisor")

    async def facts(self) -> HostFacts:
        return await self._run(self._facts)

    async def domain(self, name: str) -> Domain:
        return await self._run(domains.find, self._control, self._store, name)

    async def name_of(self, uuid: str) -> str | None:
        return await self._run(domains.name_of, self._control, self._store, uuid)

    async def devices(self, domain: Domain) -> Domain | None:
        return await self._run(self._devices, domain)

    async def open_source(self, domain: Domain) -> XenSource | HelperSource:
        """As the port says. Refused: PV guests where Xen has no shadow paging, disks, passed-through
        and other devices, vNUMA, several processors' worth of nothing else; guests that do not announce that they can suspend."""
        await self._run(self._check_engine, domain)
        reason = await self._run(self._cannot_protect, domain)
        if reason is None:
            config = await toolstack.configuration(domain.name, domain.domid)
            reason = "it has virtual NUMA nodes" if config.get("b_info", {}).get("vnuma_nodes") else None
        if reason is not None:
            raise RefusedError(f"{domain.name} cannot be protected: {reason}", operation="protect", domain=domain.name)
        entry = self._ledger.open(domain.name, "checkpoints")
        if domain.guest_type is GuestType.PV:
            return HelperSource(self._libs, domain, json.dumps(config), self._supervisor, self._helper, entry)
        preamble = await self._run(self._preamble, domain, config)
        return XenSource(self._libs, domain, preamble, self._supervisor, entry=entry)

    async def open_target(self, preamble: bytes, working_name: str) -> XenTarget:
        if await self._run(domains.named, self._store, working_name):
            raise RefusedError(f"a domain {working_name} exists already", operation="build a copy", domain=working_name)
        guest = parse_preamble(preamble).name
        target = XenTarget(self._libs, working_name, self._ledger.open(guest, "copy"))
        try:
            await target.start(renamed(preamble, working_name))
        except HypervisorError:
            await target.abort()
            raise
        return target

    async def names(self) -> frozenset[str]:
        return await self._run(lambda: frozenset(domains.names(self._store).values()))

    async def rename(self, domain: Domain, name: str) -> Domain:
        return await self._run(self._rename, domain, name)

    async def destroy(self, name: str) -> bool:
        found = await self._run(domains.named, self._store, name)
        for domid in found:
            await toolstack.run(
                "destroy",
                str(domid),
                operation="destroy the domain",
                domain=name,
                left=f"domain {domid} is still there, whole or in part",
                hint=f"look at `xl list` and dmesg; by hand: xl destroy {domid}",
            )
        return bool(found)

    async def resume(self, domain: Domain) -> bool:
        return await self._run(self._resume, domain)

    async def is_paused(self, domain: Domain) -> bool:
        return await self._run(self._is_paused, domain)

    async def pause(self, domain: Domain) -> None:
        if not await self._run(self._is_paused, domain):
            await toolstack.run(
                "pause",
                str(domain.domid),
                operation="pause the guest",
                domain=domain.name,
                left="it may run on",
                hint=f"by hand: xl pause {domain.name}",
            )

    async def unpause(self, domain: Domain) -> None:
        if await self._run(self._is_paused, domain):
            await toolstack.run(
                "unpause",
                str(domain.domid),
                operation="unpause the guest",
                domain=domain.name,
                left="it may be paused still",
                hint="look at `xl list`, /var/log/xen and dmesg on this host",
            )

    async def domids(self) -> frozenset[int]:
        return await self._run(lambda: frozenset(info.domain for info in self._control.domains() if not info.dying))

    async def close(self) -> None:
        """Let go of Xen's handles."""
        await self._run(self._control.close)
        await self._run(self._store.close)
        self._thread.end()

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self._thread.run(function, *args, **kwargs)

    # In the thread

    def _is_paused(self, domain: Domain) -> bool:
        """Xen counts how often a domain was paused, so it is asked first."""
        info = self._control.info(domain.domid)
        if info is None or info.dying or info.uuid != domain.uuid:
            raise DomainNotFound("it is gone, or another one by now", operation="pause or unpause", domain=domain.name)
        return info.paused

    def _rename(self, domain: Domain, name: str) -> Domain:
        info = self._control.info(domain.domid)
        if info is None or info.dying or info.uuid != domain.uuid:
            raise DomainNotFound("it is gone, or another one by now", operation="rename", domain=domain.name)
        domains.rename(self._store, domain.domid, domain.name, name)
        return domains.describe(self._control, self._store, domain.domid)

    def _facts(self) -> HostFacts:
        return HostFacts(
            xen_version=".".join(map(str, self._libs.version)),
            cpu_policy=self._control.host_policy_digest(),
            free_memory_kib=self._control.free_memory_kib(),
            pv_cpu_policy=self._control.host_policy_digest(s.CPU_POLICY_PV_MAX)
            if self._control.has(s.PHYSCAP_PV)
            else "",
            device_model=self._device_model.exists(),
        )

    def _devices(self, domain: Domain) -> Domain | None:
        ids, now = domains.replicated_ids(self._store, domain.domid), time.monotonic()
        last = self._shown.get(domain.domid)
        if last is not None and last.ids == ids and last.domain.uuid == domain.uuid and now - last.at < FRESH_SECONDS:
            return last.domain
        self._shown.pop(domain.domid, None)
        try:
            found = domains.describe(self._control, self._store, domain.domid)
        except DomainNotFound:
            return None
        # Asked for after its devices were read: the toolstack pauses a domain before it takes the first one away.
        info = self._control.info(domain.domid)
        if info is None or info.dying or info.paused or info.shutdown is not None or found.uuid != domain.uuid:
            return None
        self._shown[domain.domid] = _Shown(now, ids, found)
        return found

    def _resume(self, domain: Domain) -> bool:
        info = self._control.info(domain.domid)
        if info is None or info.dying or info.uuid != domain.uuid:
            raise DomainNotFound(f"domain {domain.domid} is gone", operation="resume the guest", domain=domain.name)
        if not info.suspended:
            return False
        if domain.guest_type is GuestType.HVM:
            self._let_device_model_go_on(domain)
        DomainControl(self._control, domain.domid, domain.name, domain.uuid).resume()
        try:
            self._store.resume_domain(domain.domid)
        except HypervisorError as error:
            log.warning("%s: %s", domain.name, error)  # it runs
        return True

    def _let_device_model_go_on(self, domain: Domain) -> None:
        """Before the guest does. A guest whose device model is deaf is resumed all the same."""
        model = DeviceModel(domain.domid, domain.name)
        try:
            with model.line():
                model.cont()
        except HypervisorError as error:
            log.error("%s: its device model may be halted: %s", domain.name, error)
        finally:
            model.close()

    def _check_engine(self, domain: Domain) -> None:
        """Raises RefusedError when this host lacks what checkpoints of such a guest need."""
        if domain.guest_type is not GuestType.PV:
            return
        if not self._control.has(s.PHYSCAP_SHADOW):
            raise RefusedError(
                f"{domain.name} cannot be protected: Xen on this host is built without shadow paging, so a PV guest has no "
                "log-dirty mode and what it writes cannot be found out",
                operation="protect",
                domain=domain.name,
                left="nothing was changed",
                hint="run it as a PVH guest, or use hosts whose Xen has shadow paging ('xl info' shows it among virt_caps), "
                "such as Debian 12's before its security updates of 2026",
            )
        if not self._helper.exists():
            raise RefusedError(
                f"{domain.name} cannot be protected: there is no save helper at {self._helper}",
                operation="protect",
                domain=domain.name,
                left="nothing was changed",
                hint="install the xen-utils of the running Xen",
            )

    def _cannot_protect(self, domain: Domain) -> str | None:
        """The reason, or None."""
        now = domains.describe(self._control, self._store, domain.domid)
        other = sorted({*domains.device_kinds(self._store, domain.domid)} - PROTECTED_DEVICES)
        suspends = domains.may_suspend(self._store, domain.domid)
        reasons = (
            (now.uuid != domain.uuid, f"domain {domain.domid} is another domain by now"),
            (other, f"it has devices that cannot be replicated ({', '.join(other)})"),
            (
                any(not (vif.mac and vif.bridge) for vif in now.vifs),
                "one of its interfaces is not bridged by this dom0",
            ),
            (
                domain.guest_type is GuestType.HVM and not self._control.has_pv_drivers(domain.domid),
                "its kernel has no drivers for Xen (yet), so it cannot be asked to suspend",
            ),
            (
                not suspends,
                "its kernel does not offer to suspend (control/feature-suspend; Linux needs CONFIG_PM_SLEEP)",
            ),
        )
        return next((text for applies, text in reasons if applies), None)

    def _preamble(self, domain: Domain, config: dict[str, Any]) -> bytes:
        cpuid, msrs = self._control.domain_policy(domain.domid)
        return writer.preamble(json.dumps(config), self._libs.version, cpuid, msrs)
