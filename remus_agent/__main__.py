"""The composition root: reads the configuration, picks the adapters, runs the agent until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from remus_agent import __version__, config, disk_config, faults, group_config
from remus_agent.adapters import digests, memory, release, systemd, turns
from remus_agent.adapters.clock import SystemClock
from remus_agent.adapters.disk.layers import DiskMapping
from remus_agent.adapters.disk.replicas import FileReplicas
from remus_agent.adapters.disk.tap import DiskTaps, TapLimits
from remus_agent.adapters.fence.agents import FenceAgents
from remus_agent.adapters.journal import directory
from remus_agent.adapters.journal.file import FileJournals
from remus_agent.adapters.journal.guests import GuestFiles
from remus_agent.adapters.journal.pauses import PauseFiles
from remus_agent.adapters.ledger import Ledger
from remus_agent.adapters.net.announce import BridgeAnnouncer
from remus_agent.adapters.net.output_buffers import PlugOutputBuffers
from remus_agent.adapters.transport import tcp, tls
from remus_agent.adapters.transport.control_server import ControlServer
from remus_agent.adapters.witness.etcd import EtcdWitness
from remus_agent.adapters.witness.gateway import EtcdAccess
from remus_agent.adapters.xen import guard, libs
from remus_agent.adapters.xen.control import Control
from remus_agent.adapters.xen.hypervisor import XenHypervisor
from remus_agent.adapters.xen.watchdog import XenWatchdog
from remus_agent.config import Config
from remus_agent.errors import RemusError
from remus_agent.observe import logs
from remus_agent.observe.events import EventLog
from remus_agent.services.agent import AgentService
from remus_agent.services.backup import BackupService
from remus_agent.services.backup_ports import BackupPorts
from remus_agent.services.group_disks import GroupReplicas, GroupTaps
from remus_agent.services.group_hypervisor import GroupHypervisor
from remus_agent.services.group_outputs import GroupOutputs
from remus_agent.services.primary_ports import PrimaryPorts
from remus_agent.services.requests import handlers
from remus_agent.services.settings import Settings

log = logging.getLogger("remus_agent")


def main() -> None:
    """`remus-agent`: run the agent. Ends with the exit code of the error that stopped it."""
    parser = argparse.ArgumentParser(prog="remus-agent", description="Replicate running Xen guests to another host.")
    parser.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="configuration file (%(default)s)")
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    logs.setup()
    turns.shorten()
    try:
        faults.check()
        # Before they are read: one that is replaced in between counts as not read.
        read = digests.of_files((arguments.config, disk_config.DEFAULT_PATH))
        asyncio.run(_run(config.load(arguments.config), read))
    except RemusError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)


async def _run(settings: Config, read: Mapping[str, str | None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        events = EventLog(settings.paths.state / "events.jsonl")
        stack.callback(events.close)
        encryption = tls.of_config(settings)
        if encryption is not None:
            encryption.warn()
        clock = SystemClock()
        ledger = Ledger()
        hypervisor = GroupHypervisor(XenHypervisor(settings.paths.supervisor_socket, ledger), settings.groups)
        service = _compose(settings, events, encryption, hypervisor, clock, ledger)
        replication = settings.replication
        listeners = [(replication.listen, replication.peer_ips, service.backup.on_connection)]
        if replication.second is not None:
            listeners.append((replication.second, replication.second_ips, service.backup.on_beats))
        for address, ips, serve in listeners:
            silence = settings.timeouts.silence
            listener = await tcp.serve(str(address), ips, serve, silence=silence, tls=encryption)
            stack.push_async_callback(listener.close)
        stack.push_async_callback(service.close)
        describe_tls = None if encryption is None else encryption.describe
        control = ControlServer(
            settings.paths.agent_socket,
            handlers(
                service,
                _reader(events),
                describe_tls=describe_tls,
                configuration=read,
                selftest=service.selftest(
                    lambda: asyncio.to_thread(directory.check_writable, settings.paths.journal), describe_tls
                ),
            ),
        )
        await service.resume()
        await control.start()
        stack.push_async_callback(control.close)
        if settings.http is not None:
            await _serve_http(stack, settings, settings.http, service, hypervisor, clock, encryption)
        alive = asyncio.create_task(_stay_alive(), name="watchdog")
        stack.callback(alive.cancel)
        systemd.notify("READY=1")
        log.info("agent %s of host %s is ready", release.running() or __version__, settings.host.name)
        await stop.wait()
        systemd.notify("STOPPING=1")
        log.info("stopping; guests run on, held output stays held")


async def _serve_http(
    stack: contextlib.AsyncExitStack,
    settings: Config,
    where: config.Http,
    service: AgentService,
    hypervisor: GroupHypervisor,
    clock: SystemClock,
    encryption: tls.MutualTls | None,
) -> None:
    """Metrics and health. Imported here: who has not configured them shall not wait for what they are made with."""
    from remus_agent.adapters.http.server import HttpServer  # noqa: PLC0415
    from remus_agent.observe.view import CertificateView  # noqa: PLC0415
    from remus_agent.services.monitoring import Monitoring, Probes  # noqa: PLC0415
    from remus_agent.services.witness_probe import WitnessProbe  # noqa: PLC0415

    async def certificate(of: tls.MutualTls) -> CertificateView:
        return CertificateView(*await of.validity())

    access = _witness(settings)
    witness = None if access is None else WitnessProbe(access, clock)
    if witness is not None:
        witness.start()
        stack.push_async_callback(witness.close)
    probes = Probes(
        supervisor=functools.partial(guard.is_there, settings.paths.supervisor_socket),
        certificate=None if encryption is None else functools.partial(certificate, encryption),
        witness=witness,
    )
    server = HttpServer(where.listen, Monitoring(service, hypervisor, clock, probes).handlers())
    server.start()
    stack.push_async_callback(server.close)


def _compose(
    settings: Config,
    events: EventLog,
    encryption: tls.MutualTls | None,
    hypervisor: GroupHypervisor,
    clock: SystemClock,
    ledger: Ledger,
) -> AgentService:
    numbers = Settings(
        host=settings.host.name,
        connect=settings.timeouts.connect,
        suspend=settings.timeouts.suspend,
        ack=settings.timeouts.ack,
        silence=settings.timeouts.silence,
        heartbeat=settings.timeouts.heartbeat,
        activate=settings.timeouts.activate,
        retry=settings.timeouts.retry,
        detect=settings.timeouts.detect,
        solo=settings.timeouts.solo,
        interval_ms=settings.pacing.interval_ms,
        output_limit_bytes=settings.output.limit_bytes,
        automatic_failover=settings.automatic.failover,
        automatic_solo=settings.automatic.solo,
        automatic_reprotect=settings.automatic.reprotect,
        watchdog_seconds=settings.watchdog.seconds,
        groups=settings.groups,
    )
    disks = disk_config.load(disk_config.DEFAULT_PATH, settings.paths.state, settings.paths.run)
    group_config.check_disks(settings.groups, [disk.domain for disk in disks])
    if disks:
        memory.lock()
    peers = {name: str(address) for name, address in settings.replication.peers.items()}
    connector = tcp.TcpConnector(
        silence=settings.timeouts.silence, source=settings.replication.listen.ip, tls=encryption
    )
    announcer = BridgeAnnouncer()
    backup = BackupService(
        BackupPorts(
            hypervisor=hypervisor,
            journals=FileJournals(settings.paths.state / "journal"),
            announcer=announcer,
            events=events,
            clock=clock,
            replicas=GroupReplicas(
                FileReplicas(disks, DiskMapping(disks, settings.paths.state), ledger=ledger), settings.groups
            ),
        ),
        numbers,
    )
    ports = PrimaryPorts(
        hypervisor=hypervisor,
        connector=connector,
        store=GuestFiles(settings.paths.state / "guests"),
        events=events,
        clock=clock,
        taps=GroupTaps(DiskTaps(disks, settings.paths.run, TapLimits(), ledger), settings.groups),
        announcer=announcer,
        witness=_witness(settings),
        second=_second(settings, encryption),
        fencing=FenceAgents(settings.fencing, clock) if settings.fencing else None,
        # Also where it is off now: an agent that was killed may have left it armed.
        pauses=PauseFiles(settings.paths.state / "paused"),
        watchdog=XenWatchdog(Control(libs.load()), settings.paths.run / "watchdog.json"),
        costs=ledger,
    )
    paths = {name: str(address) for name, address in settings.replication.second_paths.items()}
    return AgentService(numbers, peers, ports, GroupOutputs(PlugOutputBuffers()), backup, paths, release.running())


def _second(settings: Config, encryption: tls.MutualTls | None) -> tcp.TcpConnector | None:
    if settings.replication.second is None:
        return None
    return tcp.TcpConnector(silence=settings.timeouts.silence, source=settings.replication.second.ip, tls=encryption)


def _witness(settings: Config) -> EtcdWitness | None:
    if settings.witness is None or settings.tls is None:
        return None
    return EtcdWitness(EtcdAccess(settings.witness.endpoints, settings.tls, settings.witness.timeout))


def _reader(events: EventLog) -> Callable[[int, str | None, int], list[dict[str, object]]]:
    return lambda since, domain, limit: [event.as_dict() for event in events.read(since, domain, limit)]


async def _stay_alive() -> None:
    """Feed systemd's watchdog from the event loop: a loop that hangs is restarted, and its guests stay held."""
    seconds = systemd.watchdog_seconds()
    while seconds is not None:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    main()
