"""A real Prometheus scrapes two real agents over simulated hosts, by what the role remus_monitoring renders; then every query of
the dashboard and of docs/operations.md, and every rule, is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from deadline import until
from prometheus_server import Prometheus, configuration, prometheus
from prometheus_tools import SECONDS, promtool

from remus_agent.adapters.http.server import HttpServer
from remus_agent.adapters.sim.local import LoopClock
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.addresses import Address
from remus_agent.cost_ports import Cost
from remus_agent.observe.view import CertificateView
from remus_agent.services.monitoring import Monitoring, Probes
from remus_agent.services.witness_probe import WitnessProbe
from tests.model.pair import Host, Pair, on

NOTHING = {
    ("Alerts that fire", "A"),
    ("Full copy at the start of a session", "A"),
    ("What the full copy takes yet", "A"),
    ("What a host needs", "D"),
}
"""Queries that show nothing on a pair without a fault and without a watchdog, after its first copy."""


async def certificate() -> CertificateView:
    """Of both hosts."""
    return CertificateView(2.5e9, usable=True)


@contextlib.asynccontextmanager
async def endpoint(host: Host, witness: SimWitness) -> AsyncIterator[int]:
    """The HTTP endpoint of a host's agent; its port."""
    clock = LoopClock()
    probe = WitnessProbe(witness.of(host.name), clock)
    probe.start()
    probes = Probes(supervisor=lambda: True, certificate=certificate, witness=probe)
    server = HttpServer(Address("127.0.0.1", 0), Monitoring(on(host), host.xen, clock, probes).handlers())
    server.start()
    await until(lambda: server.port is not None)
    try:
        assert server.port is not None
        yield server.port
    finally:
        await server.close()
        await probe.close()


def wrong_with(server: Prometheus) -> list[str]:
    """The dashboard's queries and the rules."""
    empty = {place for place, values in server.panels().items() if not values}
    wrong = [f"{place}: nothing, or something that should not be there" for place in empty ^ NOTHING]
    firing = [f"{rule['name']} fires" for rule in server.loaded() if rule.get("state") == "firing"]
    return wrong + server.wrong() + firing


async def test_the_dashboard_and_the_rules_on_what_agents_serve(tmp_path: Path) -> None:
    pair, witness = Pair(disks=("xvda",)), SimWitness()
    async with contextlib.AsyncExitStack() as stack:
        ports = {
            host.name: await stack.enter_async_context(endpoint(host, witness)) for host in (pair.alpha, pair.beta)
        }
        path = configuration(tmp_path, {name: f"127.0.0.1:{port}" for name, port in ports.items()}, interval=1)
        assert "SUCCESS" in await asyncio.to_thread(promtool, "check", "config", str(path))
        await pair.protect()
        pair.alpha.costs.by_guest["web1"] = {"checkpoints": Cost(1.0, 8 << 20), "disks": Cost(0.5, 38 << 20)}
        server = stack.enter_context(prometheus(tmp_path, path, window="20s"))

        async def become(query: str) -> None:
            async with asyncio.timeout(SECONDS):
                while not await asyncio.to_thread(server.value, query):
                    pair.guest.write(1, b"changed")
                    await asyncio.sleep(0.1)

        await become("count(count_over_time(remus_build_info[1m]) >= 5) == 2")
        await become("count(instance_domain:remus_epoch_down_seconds:p99_5m >= 0)")
        wrong = await asyncio.to_thread(wrong_with, server)
        log = server.log
        for host in (pair.alpha, pair.beta):
            await on(host).close()
    assert wrong == []
    assert "level=error" not in log
