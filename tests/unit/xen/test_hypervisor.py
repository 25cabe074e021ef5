"""Domains are described from xenstore; what cannot be protected is refused with its reason."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_xen import DOMID, NAME, UUID, FakeXen

from remus_agent.adapters.ledger import Entry, Ledger
from remus_agent.adapters.xen import domains, hypervisor
from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.control import Control, DomainControl
from remus_agent.adapters.xen.helper_source import HelperSource
from remus_agent.adapters.xen.hypervisor import XenHypervisor
from remus_agent.adapters.xen.suspend import Suspender
from remus_agent.adapters.xen.xenstore import XenStore
from remus_agent.cost_ports import Part
from remus_agent.errors import DomainNotFound, HypervisorError, RefusedError
from remus_agent.ports import GuestType, Vbd
from remus_agent.protocol.stream.preamble import parse_preamble

DEVICE = f"/libxl/{DOMID}/device"


@pytest.fixture
def xen() -> FakeXen:
    fake = FakeXen()
    fake.store |= {
        f"{DEVICE}/vif/0/backend": "/local/domain/0/backend/vif/7/0",
        "/local/domain/0/backend/vif/7/0/mac": "00:16:3e:77:00:64",
        "/local/domain/0/backend/vif/7/0/bridge": "xenbr0",
        f"/local/domain/{DOMID}/control/feature-poweroff": "1",
    }
    return fake


@pytest.fixture
def host(xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> XenHypervisor:
    entry = {"domid": DOMID, "config": {"c_info": {"name": NAME}, "b_info": {}}}
    script = tmp_path / "xl"
    script.write_text(f"#!/bin/sh\necho \"$@\" >>{tmp_path}/arguments\necho '{json.dumps([entry])}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(hypervisor.libs, "load", lambda: xen.libs)
    return XenHypervisor(tmp_path / "supervisor.sock")


async def test_a_domain_is_found_by_name(host: XenHypervisor, xen: FakeXen) -> None:
    domain = await host.domain(NAME)
    assert (domain.domid, domain.uuid, domain.guest_type) == (DOMID, UUID, GuestType.PVH)
    assert domain.memory_kib == xen.tot_pages * 4
    vif = domain.vifs[0]
    assert (vif.devid, vif.device, vif.mac, vif.bridge) == (0, "vif7.0", "00:16:3e:77:00:64", "xenbr0")
    with pytest.raises(DomainNotFound, match="no domain web9 runs here; there are: web1"):
        await host.domain("web9")


@pytest.mark.parametrize("kind", ["pvh", "hvm"])
async def test_the_emulated_twins_of_interfaces_are_outputs(
    host: XenHypervisor, xen: FakeXen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(domains, "NET", tmp_path)
    xen.store[f"/libxl/{DOMID}/type"] = kind
    assert [vif.device for vif in (await host.domain(NAME)).outputs] == ["vif7.0"]
    (tmp_path / "vif7.0-emu").touch()
    outputs = (await host.domain(NAME)).outputs
    assert [(vif.devid, vif.device, vif.emulated) for vif in outputs[1:]] == (
        [(0, "vif7.0-emu", True)] if kind == "hvm" else []
    )


async def test_a_source_carries_configuration_and_policy(host: XenHypervisor, xen: FakeXen) -> None:
    source = await host.open_source(await host.domain(NAME))
    preamble = parse_preamble(source.preamble)
    assert (preamble.name, preamble.xen, len(preamble.cpuid), len(preamble.msr)) == (NAME, (4, 20), 48, 16)
    await source.close()
    await host.close()


class Noted(Ledger):
    """One that remembers what was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, Part]] = []

    def open(self, guest: str, part: Part) -> Entry:
        self.opened.append((guest, part))
        return super().open(guest, part)


async def test_a_copy_is_counted_for_the_guest_and_not_for_its_working_name(
    host: XenHypervisor, tmp_path: Path
) -> None:
    host._ledger = ledger = Noted()
    source = await host.open_source(await host.domain(NAME))
    (preamble,) = source.preambles
    await source.close()
    (tmp_path / "xl").write_text("#!/bin/sh\nexec cat >/dev/null\n")
    target = await host.open_target(preamble, f"{NAME}--incoming-00000000")
    await target.abort()
    await host.close()
    assert ledger.opened == [(NAME, "checkpoints"), (NAME, "copy")]


async def test_a_pv_guest_is_read_by_xens_helper(host: XenHypervisor, xen: FakeXen, tmp_path: Path) -> None:
    xen.store[f"/libxl/{DOMID}/type"] = "pv"
    assert host._helper == Path("/usr/lib/xen-4.20/bin/libxl-save-helper")
    host._helper = tmp_path / "libxl-save-helper"
    with pytest.raises(RefusedError, match="there is no save helper at"):
        await host.open_source(await host.domain(NAME))
    host._helper.touch()
    source = await host.open_source(await host.domain(NAME))
    assert isinstance(source, HelperSource)
    await source.close()


async def test_a_pv_guest_needs_shadow_paging(host: XenHypervisor, xen: FakeXen) -> None:
    xen.store[f"/libxl/{DOMID}/type"] = "pv"
    xen.capabilities = s.PHYSCAP_PV
    with pytest.raises(
        RefusedError, match="built without shadow paging, so a PV guest has no log-dirty mode"
    ) as caught:
        await host.open_source(await host.domain(NAME))
    assert "PVH" in (caught.value.hint or "")
    assert "Debian 12" in (caught.value.hint or "")


VBD = "/local/domain/0/backend/vbd/7/51712"
PHY = {"dev": "xvda", "params": "/dev/mapper/remus-web1-xvda", "mode": "w", "type": "phy", "device-type": "disk"}


@pytest.mark.parametrize(
    ("backend", "change", "shown"),
    [
        (VBD, {}, Vbd("xvda", "/dev/mapper/remus-web1-xvda")),
        (VBD, {"mode": "r"}, Vbd("xvda", "/dev/mapper/remus-web1-xvda", writable=False)),
        (VBD, {"mode": "w!"}, Vbd("xvda", "/dev/mapper/remus-web1-xvda", shareable=True)),
        (
            "/local/domain/0/backend/qdisk/7/51712",
            {"params": "aio:/srv/cd:1.iso", "type": "qdisk", "device-type": "cdrom", "mode": "r"},
            Vbd("xvda", "/srv/cd:1.iso", writable=False, cdrom=True, backend="qdisk"),
        ),
        (VBD, {"params": "", "device-type": "cdrom"}, Vbd("xvda", "", cdrom=True)),
        (
            "/local/domain/3/backend/vbd/7/51712",
            {"params": "/dev/x"},
            Vbd("xvda", "/dev/x", backend="phy of another domain"),
        ),
    ],
)
async def test_disks_are_read_from_their_backends(
    host: XenHypervisor, xen: FakeXen, backend: str, change: dict[str, str], shown: Vbd
) -> None:
    xen.store[f"{DEVICE}/vbd/51712/backend"] = backend
    xen.store |= {f"{backend}/{key}": value for key, value in (PHY | change).items()}
    assert (await host.domain(NAME)).disks == (shown,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({f"{DEVICE}/pci/0/backend": "/b"}, r"cannot be replicated \(pci\)"),
        ({f"{DEVICE}/9pfs/0/backend": "/b", f"{DEVICE}/vtpm/0/backend": "/b"}, r"\(9pfs, vtpm\)"),
        ({"/local/domain/0/backend/vif/7/0/bridge": ""}, "not bridged"),
        ({f"/local/domain/{DOMID}/control/feature-suspend": ""}, "does not offer to suspend"),
    ],
)
async def test_what_cannot_be_protected_is_refused(
    host: XenHypervisor, xen: FakeXen, change: dict[str, str], reason: str
) -> None:
    xen.store |= change
    with pytest.raises(RefusedError, match=reason):
        await host.open_source(await host.domain(NAME))


async def test_an_hvm_guest_without_drivers_for_xen_is_refused(host: XenHypervisor, xen: FakeXen) -> None:
    xen.store[f"/libxl/{DOMID}/type"] = "hvm"
    xen.callback_irq = 0
    with pytest.raises(RefusedError, match="no drivers for Xen"):
        await host.open_source(await host.domain(NAME))
    assert not xen.logdirty


def test_a_restored_guest_may_be_protected_again(xen: FakeXen) -> None:
    store = XenStore(xen.libs)
    assert domains.may_suspend(store, DOMID)
    xen.store[f"/local/domain/{DOMID}/control/feature-suspend"] = ""
    assert not domains.may_suspend(store, DOMID)
    xen.store[f"/local/domain/{DOMID}/control/feature-poweroff"] = ""
    assert domains.may_suspend(store, DOMID)


async def test_destroying_goes_by_name(host: XenHypervisor, tmp_path: Path) -> None:
    assert await host.destroy(NAME)
    assert not await host.destroy("web9")
    assert (tmp_path / "arguments").read_text() == f"destroy {DOMID}\n"


async def test_ids_are_those_of_all_domains_that_live(host: XenHypervisor, xen: FakeXen) -> None:
    assert await host.domids() == {DOMID}
    xen.dying = True  # it stays as long as its held frames, which the sweep is to drop
    assert await host.domids() == frozenset()
    xen.gone = True
    assert await host.domids() == frozenset()


async def test_a_domain_is_called_by_its_uuid_whatever_its_name(host: XenHypervisor, xen: FakeXen) -> None:
    assert await host.name_of(UUID) == NAME
    assert await host.name_of(UUID[:-1] + "0") is None
    xen.paused = True
    assert await host.name_of(UUID) == NAME
    del xen.store[f"/local/domain/{DOMID}/name"]  # the toolstack is building it
    assert await host.name_of(UUID) == f"domain {DOMID}"
    xen.dying = True
    assert await host.name_of(UUID) is None


async def test_whether_there_is_a_device_model(host: XenHypervisor, tmp_path: Path) -> None:
    host._device_model = tmp_path / "qemu"
    assert not (await host.facts()).device_model
    host._device_model.touch()
    assert (await host.facts()).device_model


async def test_facts_name_version_policy_and_memory(host: XenHypervisor, xen: FakeXen) -> None:
    facts = await host.facts()
    assert (facts.xen_version, facts.free_memory_kib, len(facts.cpu_policy)) == ("4.20", 4000, 64)
    assert facts.policy_for(GuestType.PVH) == facts.policy_for(GuestType.HVM) == facts.cpu_policy
    assert len(facts.policy_for(GuestType.PV)) == 64
    assert facts.policy_for(GuestType.PV) != facts.cpu_policy
    xen.capabilities = 0
    assert (await host.facts()).policy_for(GuestType.PV) == ""


def channel(xen: FakeXen, kept: int | None) -> tuple[Suspender, list[Any]]:
    """A suspender on a fake whose event channels work; what was bound."""
    bound: list[Any] = []
    reader, writer = os.pipe()
    os.write(writer, b"\0")
    xen.xc_evtchn_alloc_unbound = lambda *_: 31  # type: ignore[method-assign]
    xen.xenevtchn_bind_interdomain = lambda _, domid, port: bound.append(port) or 5  # type: ignore[method-assign, func-returns-value]
    xen.xenevtchn_fd = lambda _: reader  # type: ignore[attr-defined]
    xen.xenevtchn_pending = lambda _: os.read(reader, 1)[0] + 5  # type: ignore[attr-defined]
    if kept is not None:
        xen.store[f"/libxl/{DOMID}/remus-suspend-port"] = str(kept)
    libs = xen.libs
    suspender = Suspender(libs, DomainControl(Control(libs), DOMID, NAME, UUID), XenStore(libs))
    suspender.open()
    return suspender, bound


@pytest.mark.parametrize(("kept", "port"), [(None, 31), (12, 12)])
def test_the_event_channel_is_used_and_used_again(xen: FakeXen, kept: int | None, port: int) -> None:
    suspender, bound = channel(xen, kept)
    assert (suspender.has_channel, bound, xen.subscribed) == (True, [port], port)
    assert xen.store[f"/libxl/{DOMID}/remus-suspend-port"] == str(port)
    assert suspender.suspend(1.0).suspended
    suspender.resumed()
    assert xen.count("xenevtchn_unmask") == 1
    assert xen.count("xs_resume_domain") == 0  # xenstored has not seen the shutdown
    suspender.close()
    suspender.close()
    assert (xen.subscribed, xen.count("xenevtchn_close")) == (0, 1)


async def test_devices_that_came_or_went_show_at_once(host: XenHypervisor, xen: FakeXen) -> None:
    domain = await host.domain(NAME)
    assert await host.devices(domain) == domain
    reads = xen.count("xs_read")
    assert await host.devices(domain) == domain
    assert xen.count("xs_read") == reads, "the same devices are not read again within two seconds"
    xen.store[f"{DEVICE}/vbd/51712/backend"] = VBD
    xen.store |= {f"{VBD}/{key}": value for key, value in PHY.items()}
    now = await host.devices(domain)
    assert now is not None
    assert now.disks == (Vbd("xvda", "/dev/mapper/remus-web1-xvda"),)
    del xen.store[f"{DEVICE}/vif/0/backend"]
    now = await host.devices(domain)
    assert now is not None
    assert now.vifs == ()


async def test_what_a_device_leads_to_is_read_again_after_a_while(
    host: XenHypervisor, xen: FakeXen, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(hypervisor.time, "monotonic", lambda: clock[0])
    xen.store[f"{DEVICE}/vbd/51712/backend"] = VBD
    xen.store |= {f"{VBD}/{key}": value for key, value in PHY.items()}
    domain = await host.domain(NAME)
    await host.devices(domain)
    xen.store[f"{VBD}/params"] = "/dev/vg/other"
    clock[0] += 2.0
    now = await host.devices(domain)
    assert now is not None
    assert now.disks[0].path == "/dev/vg/other"


@pytest.mark.parametrize("state", ["paused", "shutdown", "dying", "gone"])
async def test_a_domain_on_its_way_out_says_nothing_about_its_devices(
    host: XenHypervisor, xen: FakeXen, state: str
) -> None:
    domain = await host.domain(NAME)
    del xen.store[f"{DEVICE}/vif/0/backend"]
    setattr(xen, state, 0 if state == "shutdown" else True)
    assert await host.devices(domain) is None


async def test_an_interface_made_anew_has_another_number(
    host: XenHypervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domains, "NET", tmp_path)
    before = (await host.domain(NAME)).vifs[0]
    (tmp_path / "vif7.0").mkdir()
    (tmp_path / "vif7.0" / "ifindex").write_text("42\n")
    after = (await host.domain(NAME)).vifs[0]
    assert (before.index, after.index) == (0, 42)
    assert before != after


async def test_a_guest_that_is_down_for_suspension_is_resumed(host: XenHypervisor, xen: FakeXen) -> None:
    domain = await host.domain(NAME)
    assert await host.resume(domain) is False
    xen.shutdown = s.Shutdown.SUSPEND
    assert await host.resume(domain) is True
    assert xen.shutdown is None
    xen.gone = True
    with pytest.raises(DomainNotFound):
        await host.resume(domain)


async def test_a_guest_is_paused_once_and_unpaused_once(host: XenHypervisor, tmp_path: Path) -> None:
    """Xen counts how often it was paused."""
    domain = await host.domain(NAME)
    await host.unpause(domain)
    assert not (tmp_path / "arguments").exists(), "it runs"
    await host.pause(domain)
    assert (tmp_path / "arguments").read_text() == f"pause {DOMID}\n"
    with pytest.raises(DomainNotFound, match="another one by now"):
        await host.pause(replace(domain, uuid="another"))


async def test_a_copy_that_an_earlier_agent_built_is_found_and_gets_its_name(host: XenHypervisor, xen: FakeXen) -> None:
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming-7b0b2a1e"
    xen.store[f"/local/domain/{DOMID}/vm"] = "/vm/u"
    xen.paused = True
    assert await host.names() == {"web1--incoming-7b0b2a1e"}
    copy = await host.domain("web1--incoming-7b0b2a1e")
    assert await host.is_paused(copy)
    named = await host.rename(copy, "web1")
    assert (named.name, named.domid, named.vifs) == ("web1", DOMID, copy.vifs)
    assert xen.store["/vm/u/name"] == "web1"
    assert await host.names() == {"web1"}
    xen.paused = False
    assert not await host.is_paused(named)


async def test_a_name_that_another_domain_has_is_not_given(host: XenHypervisor, xen: FakeXen) -> None:
    domain = await host.domain(NAME)
    xen.store["/local/domain/9/name"] = "web2"
    with pytest.raises(HypervisorError, match="another domain is called web2"):
        await host.rename(domain, "web2")
    assert xen.store[f"/local/domain/{DOMID}/name"] == NAME
    xen.gone = True
    with pytest.raises(DomainNotFound):
        await host.rename(domain, "web3")
