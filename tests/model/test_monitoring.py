"""What the HTTP endpoint says of two whole agents: through a protection, a lost backup and a failover."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import parser

from remus_agent.adapters.sim.local import LoopClock
from remus_agent.adapters.sim.witness import SimWitness
from remus_agent.errors import HypervisorError
from remus_agent.observe import metrics
from remus_agent.observe.status import Status
from remus_agent.observe.view import CertificateView, HostView
from remus_agent.ports import HostFacts
from remus_agent.protocol.http import Refused, Request
from remus_agent.services import monitoring
from remus_agent.services.monitoring import Monitoring, Probes
from remus_agent.services.witness_probe import PERIOD, WitnessProbe
from tests.model.loop import run
from tests.model.pair import DEAD, Host, Pair, on, until


def of(host: Host, **probes: Any) -> Monitoring:
    """The monitoring of a host's agent."""
    return Monitoring(on(host), host.xen, LoopClock(), Probes(**{"supervisor": lambda: True, **probes}))


async def ask(host: Host, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    """Status and body of one answer, of the moment."""
    response = await of(host).handlers()[path](Request(path, query))
    return response.status, json.loads(response.body)


async def statuses(host: Host, **query: str) -> dict[str, int]:
    """Of every question about health."""
    return {path[1:]: (await ask(host, path, **query))[0] for path in ("/primary", "/protected", "/readiness")}


async def series(host: Host) -> dict[str, float]:
    """Metrics of web1, those without further labels."""
    _, text = metrics.page(await of(host).view(), "")
    families = list(parser.text_string_to_metric_families(text.decode()))
    return {
        sample.name: sample.value
        for family in families
        for sample in family.samples
        if sample.labels == {"domain": "web1"}
    }


def test_a_protected_guest() -> None:
    async def story() -> None:
        pair = Pair()
        assert await statuses(pair.alpha) == {"primary": 503, "protected": 503, "readiness": 200}
        await pair.protect()
        pair.guest.write(1, b"changed")
        await until(lambda: on(pair.alpha)._primaries["web1"].acked_epoch >= 5, "some epochs")
        for query in ({}, {"domain": "web1"}):
            assert await statuses(pair.alpha, **query) == {"primary": 200, "protected": 200, "readiness": 200}
            assert await statuses(pair.beta, **query) == {"primary": 503, "protected": 503, "readiness": 200}
        assert await statuses(pair.alpha, domain="web2") == {"primary": 503, "protected": 503, "readiness": 503}
        status, body = await ask(pair.beta, "/primary", domain="web1")
        assert (status, body) == (
            503,
            {
                "host": "beta",
                "ok": False,
                "guests": [{"domain": "web1", "role": "backup", "state": "ready", "ok": False}],
                "problems": [],
            },
        )
        found = await series(pair.alpha)
        assert found["remus_epoch_down_seconds_count"] >= 5
        assert found["remus_epoch_dirty_pages_count"] == found["remus_epoch_down_seconds_count"]
        assert found["remus_epoch_period_seconds_count"] == found["remus_epoch_down_seconds_count"] - 1
        assert found["remus_epoch_sent_bytes_total"] > found["remus_epoch_memory_bytes_total"] > 0
        assert found["remus_epoch_committed"] >= 5
        assert found["remus_output_limit_bytes"] == 1 << 20
        assert found["remus_domain_owned"] == found["remus_domain_protected"] == 1
        copy = await series(pair.beta)
        assert (copy["remus_domain_owned"], copy["remus_domain_ready"]) == (0, 1)
        assert "remus_ack_age_seconds" not in copy
        assert copy["remus_heard_age_seconds"] < 10

    run(story())


def test_a_lost_backup_and_a_failover() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.network.drop_all()
        pair.network.listen("beta:1", _refuse)
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "silent", "silence")
        assert await statuses(pair.alpha, domain="web1") == {"primary": 200, "protected": 503, "readiness": 503}
        assert (await statuses(pair.beta, domain="web1"))["readiness"] == 200, "an operator can activate it"
        await pair.kill_host()
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert await statuses(pair.beta, domain="web1") == {"primary": 200, "protected": 503, "readiness": 200}

    run(story())


async def _refuse(connection: Any) -> None:
    await connection.close()


def test_an_ended_protection_is_none_of_the_agents_any_more() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await on(pair.alpha).unprotect("web1", force=False, timeout=60, progress=_quiet)
        assert await statuses(pair.alpha, domain="web1") == {"primary": 503, "protected": 503, "readiness": 503}
        assert await statuses(pair.alpha) == {"primary": 503, "protected": 503, "readiness": 200}
        assert not await series(pair.alpha)

    run(story())


def test_a_paused_guest_is_told_of_also_by_an_agent_that_has_started_since() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await on(pair.alpha).pause("web1", seconds=1000, reason="backups", timeout=60, progress=_quiet)
        before = (await of(pair.alpha).view()).guests
        await pair.kill_agent(pair.alpha)
        await pair.boot(pair.alpha).resume()
        (after,) = (await of(pair.alpha).view()).guests
        assert [(one.status.state, one.uuid, one.memory_bytes) for one in before] == [
            (after.status.state, after.uuid, after.memory_bytes)
        ]
        assert after.status.state == "paused"
        await on(pair.alpha).close()

    run(story())


def _quiet(phase: str, done: int = 0, total: int = 0, unit: str = "", message: str = "") -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize(
    ("path", "query", "why"),
    [
        ("/metrics", {"domain": "web1"}, "takes no parameter"),
        ("/liveness", {"domain": "web1"}, "takes no parameter"),
        ("/primary", {"name": "web1"}, "takes domain=NAME and nothing else"),
        ("/protected", {"domain": ""}, "of 1 to 127 characters"),
        ("/readiness", {"domain": "a" * 128}, "of 1 to 127 characters"),
    ],
)
def test_wrong_questions(path: str, query: dict[str, str], why: str) -> None:
    async def story() -> None:
        with pytest.raises(Refused, match=why) as caught:
            await of(Pair().alpha).handlers()[path](Request(path, query))
        assert caught.value.response.status == 400

    run(story())


def test_the_agent_is_alive() -> None:
    async def story() -> None:
        status, body = await ask(Pair().alpha, "/liveness")
        assert status == 200
        assert (body["host"], body["ok"]) == ("alpha", True)

    run(story())


def test_a_moment_serves_everybody_who_asks_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        clock = LoopClock()
        found = of(pair.alpha)
        reads: list[HostView] = []
        read = found._read

        async def counting() -> HostView:
            reads.append(await read())
            return reads[-1]

        monkeypatch.setattr(found, "_read", counting)
        first = await found.view()
        assert await found.view() is first
        await clock.sleep(monitoring.MOMENT)
        assert await found.view() is not first
        assert len(reads) == 2

    run(story())


def test_a_hypervisor_that_does_not_answer_takes_only_its_own_figures_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()

        async def failing() -> HostFacts:
            raise HypervisorError("xc_physinfo failed", operation="facts")

        monkeypatch.setattr(pair.alpha.xen, "facts", failing)
        view = await of(pair.alpha).view()
        assert (view.xen_version, view.free_memory_bytes) == (None, None)
        assert view.guests[0].figures is not None

    run(story())


def test_a_moment_that_cannot_be_read_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        found = of(pair.alpha)

        async def failing() -> list[Status]:
            raise HypervisorError("xenstored is gone", operation="status")

        monkeypatch.setattr(on(pair.alpha), "moment", failing)
        with pytest.raises(Refused, match="cannot be read now") as caught:
            await found.handlers()["/readiness"](Request("/readiness"))
        assert caught.value.response.status == 503
        assert (await found.handlers()["/liveness"](Request("/liveness"))).status == 200
        monkeypatch.undo()
        assert (await found.handlers()["/readiness"](Request("/readiness"))).status == 200

    run(story())


def test_what_the_agent_does_not_know_itself() -> None:
    async def certificate() -> CertificateView:
        return CertificateView(1.8e9, usable=False)

    async def story() -> None:
        pair = Pair()
        view = await of(pair.alpha, supervisor=lambda: False, certificate=certificate).view()
        assert not view.supervisor
        assert view.certificate == CertificateView(1.8e9, usable=False)
        assert (view.witness, view.watchdog) == (None, None)
        assert (await of(pair.alpha, supervisor=lambda: False).handlers()["/readiness"](Request("/"))).status == 503

    run(story())


def test_a_defect_does_not_leave_the_witness_looking_reachable() -> None:
    async def story() -> None:
        witness, clock = SimWitness(), LoopClock()
        access = witness.of("alpha")
        probe = WitnessProbe(access, clock)
        probe.start()
        await clock.sleep(1)
        seen = [probe.view.reachable]
        read = access.read

        async def fails(guest: str) -> None:
            raise RuntimeError("a defect")

        access.read = fails  # type: ignore[method-assign]
        await clock.sleep(PERIOD + 1)
        seen.append(probe.view.reachable)
        access.read = read  # type: ignore[method-assign]
        await clock.sleep(PERIOD + 1)
        seen.append(probe.view.reachable)
        assert seen == [True, False, True]
        await probe.close()

    run(story())


def test_the_witness_is_asked_now_and_then() -> None:
    async def story() -> None:
        witness, clock = SimWitness(), LoopClock()
        probe = WitnessProbe(witness.of("alpha"), clock)
        assert (probe.view.reachable, probe.view.answered) == (None, None)
        probe.start()
        await clock.sleep(1)
        assert probe.view.reachable
        answered = probe.view.answered
        witness.down = True
        await clock.sleep(PERIOD + witness.timeout + 1)
        assert (probe.view.reachable, probe.view.answered) == (False, answered)
        witness.down = False
        await clock.sleep(PERIOD + witness.timeout + 1)
        assert probe.view.reachable
        assert not witness.records
        await probe.close()
        await probe.close()

    run(story())
