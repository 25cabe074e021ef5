"""Whether a host can be the backup of a domain, with every reason against it."""

from __future__ import annotations

from typing import Final

from remus_agent.errors import DomainNotFound
from remus_agent.ports import Domain, GuestType
from remus_agent.protocol.replication.messages import MAX_REASONS, Hello, Reason
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.replica_set import facts_of

OVERHEAD_KIB: Final = 24 * 1024
"""What Xen and the toolstack need for a small domain beside its memory: page tables, shadow pool, structures."""


async def examine(
    hello: Hello, ports: BackupPorts, host: str, replaceable: int, gives_way: Domain | None, *, witnessed: bool
) -> tuple[list[Reason], int]:
    """The reasons, and the free memory in KiB. Changes nothing. host: this one's name. replaceable: KiB of memory that older
    copies of the domain would give back. gives_way: a domain here that a session destroys. witnessed: hosts learn from a
    witness who owns a guest."""
    reasons: list[Reason] = []
    facts = await ports.hypervisor.facts()
    guest_type = GuestType(hello.guest_type)
    if hello.xen_version != facts.xen_version:
        reasons.append(
            _reason(
                "xen-version",
                f"{hello.host} runs Xen {hello.xen_version}, {host} runs Xen {facts.xen_version}",
                "bring both hosts to the same Xen packages",
            )
        )
    if hello.cpu_policy != facts.policy_for(guest_type):
        reasons.append(
            _reason(
                "cpu-policy",
                f"the processors of {hello.host} and {host} offer different features to guests",
                "use hosts with the same processors and microcode, or level them with Xen's cpuid options",
            )
        )
    if guest_type is GuestType.HVM and not facts.device_model:
        reasons.append(
            _reason(
                "device-model",
                f"{host} has no device model, without which an HVM guest cannot run there",
                "install qemu-system-xen on the backup",
            )
        )
    running = await _running(ports, hello.domain)
    if running is not None and (gives_way is None or running.domid != gives_way.domid):
        reasons.append(_runs_here(hello, running, host, witnessed))
    needed = hello.memory_kib + OVERHEAD_KIB
    if facts.free_memory_kib + replaceable < needed:
        reasons.append(
            _reason(
                "memory",
                f"{host} has {facts.free_memory_kib // 1024} MiB of free memory,"
                f" a copy of {hello.domain} needs {needed // 1024} MiB",
                "free memory on the backup (smaller dom0, fewer guests)",
            )
        )
    for text in await ports.replicas.examine(hello.domain, facts_of(hello.disks)) if hello.disks else ():
        reasons.append(_reason("disk", text[:4000], f"see the disks of {hello.domain} on {host}"))
    return reasons[:MAX_REASONS], facts.free_memory_kib


def _runs_here(hello: Hello, running: Domain, host: str, witnessed: bool) -> Reason:
    if running.uuid != hello.uuid:
        hint = f"that is another guest (UUID {running.uuid}) with the same name: rename one of the two"
    elif witnessed:
        hint = (
            f"wait: once {host} hears from the witness that {hello.host} owns the guest, it stands down by itself and can be the"
            f" backup; if `remusctl status {hello.domain}` on {host} says unprotected, its agent does not know the guest, and you"
            " have to destroy the stale one"
        )
    else:
        hint = "if that is the same guest after a failover, destroy the stale one first"
    return _reason("runs-here", f"{host} itself runs a domain {hello.domain} (domid {running.domid})", hint)


async def _running(ports: BackupPorts, name: str) -> Domain | None:
    try:
        return await ports.hypervisor.domain(name)
    except DomainNotFound:
        return None


def _reason(code: str, message: str, hint: str) -> Reason:
    return Reason(code=code, message=message, hint=hint)
