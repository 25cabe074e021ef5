"""Whether a host can be the backup of a domain, with every reason against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from remus_agent.errors import DomainNotFound
from remus_agent.ports import Domain, GuestType, HostFacts
from remus_agent.protocol.groups import Groups
from remus_agent.protocol.replication.messages import MAX_REASONS, Hello, HelloMember, Reason
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.replica_set import facts_of

OVERHEAD_KIB: Final = 24 * 1024
"""What Xen and the toolstack need for a small domain beside its memory: page tables, shadow pool, structures."""


def needed_kib(hello: Hello) -> int:
    """Memory that a copy takes."""
    return hello.memory_kib + OVERHEAD_KIB * len(hello.guests)


async def examine(
    hello: Hello,
    ports: BackupPorts,
    host: str,
    replaceable: int,
    gives_way: Domain | None,
    *,
    witnessed: bool,
    groups: Groups,
    held: Callable[[str], bool],
) -> tuple[list[Reason], int]:
    """The reasons, and the free memory in KiB. Changes nothing. host: this one's name. replaceable: KiB of memory that older
    copies of the domain would give back. gives_way: a domain here that a session destroys. witnessed: hosts learn from a
    witness who owns a guest. groups: of this host. held: whether it has a copy of a guest or group of this name."""
    reasons = membership(hello, groups, host, held)
    facts = await ports.hypervisor.facts()
    if hello.xen_version != facts.xen_version:
        reasons.append(
            _reason(
                "xen-version",
                f"{hello.host} runs Xen {hello.xen_version}, {host} runs Xen {facts.xen_version}",
                "bring both hosts to the same Xen packages",
            )
        )
    for guest in hello.guests:
        reasons += [reason for reason in _processors(hello, guest, facts, host) if reason not in reasons]
    going = frozenset(guest.domid for guest in gives_way.guests) if gives_way is not None else frozenset()
    for guest in hello.guests:
        running = await _running(ports, guest.name)
        if running is not None and running.domid not in going:
            reasons.append(_runs_here(hello, guest, running, host, witnessed))
    needed = needed_kib(hello)
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


def membership(hello: Hello, groups: Groups, host: str, held: Callable[[str], bool]) -> list[Reason]:
    """What speaks against a session because of the groups that this host knows."""
    same = "have the same groups with the same members in the configuration of both agents"
    name, mine = hello.domain, groups.get(hello.domain)
    if not hello.grouped:
        group = groups.of_guest(name)
        if mine is not None:
            return [_reason("group", f"{name} is a group on {host}, and a guest on {hello.host}", same)]
        if group is not None and held(group):
            return [_reason("group", f"{host} holds a copy of the group {group}, of which {name} is a member", same)]
        return []
    members = [guest.name for guest in hello.guests]
    if mine is None:
        return [_reason("group", f"{host} knows no group {name} ({', '.join(members)})", same)]
    if sorted(mine) != sorted(members):
        said = f"the group {name} is {', '.join(members)} on {hello.host}, and {', '.join(mine)} on {host}"
        return [_reason("group", said, same)]
    return [
        _reason(
            "group",
            f"{host} holds a copy of {member} alone, which is a member of {name}",
            f"end that protection first: remusctl unprotect {member}",
        )
        for member in members
        if held(member)
    ]


def _processors(hello: Hello, guest: HelloMember, facts: HostFacts, host: str) -> list[Reason]:
    reasons, guest_type = [], GuestType(guest.guest_type)
    if guest.cpu_policy != facts.policy_for(guest_type):
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
    return reasons


def _runs_here(hello: Hello, guest: HelloMember, running: Domain, host: str, witnessed: bool) -> Reason:
    if running.uuid != guest.uuid:
        hint = f"that is another guest (UUID {running.uuid}) with the same name: rename one of the two"
    elif witnessed:
        hint = (
            f"wait: once {host} hears from the witness that {hello.host} owns the guest, it stands down by itself and can be the"
            f" backup; if `remusctl status {hello.domain}` on {host} says unprotected, its agent does not know the guest, and you"
            " have to destroy the stale one; starting has its reason there"
        )
    else:
        hint = "if that is the same guest after a failover, destroy the stale one first"
    return _reason("runs-here", f"{host} itself runs a domain {guest.name} (domid {running.domid})", hint)


async def _running(ports: BackupPorts, name: str) -> Domain | None:
    try:
        return await ports.hypervisor.domain(name)
    except DomainNotFound:
        return None


def _reason(code: str, message: str, hint: str) -> Reason:
    return Reason(code=code, message=message, hint=hint)
