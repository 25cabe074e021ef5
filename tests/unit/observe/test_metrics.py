"""The metrics page: what a scraper reads out of it again."""

from __future__ import annotations

import re
from collections import Counter
from typing import get_args

import pytest
from host_views import UUID, figures, guest, host
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from remus_agent.observe import metrics
from remus_agent.observe.figures import PHASES, Distribution
from remus_agent.observe.status import DiskStatus, MemberStatus, PartCost, ProtectionCost, Seeding, State
from remus_agent.observe.view import CertificateView, HostView, WatchdogView, WitnessView

FULL = host(
    guest(
        generation=3,
        committed_epoch=41,
        held_bytes=1500,
        held_packets=1,
        dropped_packets=2,
        last_ack_age=0.04,
        interval_ms=50,
        output_limit_bytes=1 << 20,
        since=7.5,
        disks=(DiskStatus(vdev="xvda", mode="replicating", size=1 << 30, sent=4096, problem="it failed"),),
    ),
    guest("ready", "backup", 'db"1\\\n', last_ack_age=0.1),
    guest("seeding", name="sql1", seeding=Seeding(10, 40, "pages", 5.0, 6.0), reason="the backup was away"),
    guest("failed", "none", "old1"),
    xen_version="4.20",
    free_memory_bytes=1 << 30,
    certificate=CertificateView(1.8e9, usable=True),
    witness=WitnessView(reachable=True, answered=1.7e9),
    watchdog=WatchdogView(armed=True, problem=False),
)


def read(view: HostView, accept: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Value by name and labels."""
    content_type, text = metrics.page(view, accept)
    parse = openmetrics if "openmetrics" in content_type else parser
    samples = [sample for family in parse.text_string_to_metric_families(text.decode()) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): float(sample.value) for sample in samples}
    assert len(found) == len(samples), "a series twice"
    return found


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    """Of one series."""
    return found.get((name, frozenset(labels.items())))


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"])
def test_what_is_known_of_a_guest(accept: str) -> None:
    found = read(FULL, accept)
    expected = {
        "remus_domain_owned": 1,
        "remus_domain_protected": 1,
        "remus_domain_ready": 1,
        "remus_domain_problem": 0,
        "remus_domain_generation": 3,
        "remus_domain_state_age_seconds": 7.5,
        "remus_domain_memory_bytes": 64 << 20,
        "remus_epoch_committed": 41,
        "remus_epoch_interval_seconds": 0.05,
        "remus_ack_age_seconds": 0.04,
        "remus_heard_age_seconds": None,
        "remus_output_held_bytes": 1500,
        "remus_output_held_frames": 1,
        "remus_output_limit_bytes": 1 << 20,
        "remus_output_dropped_frames_total": 2,
        "remus_epoch_memory_bytes_total": 2 * 100 * 4096,
        "remus_epoch_sent_bytes_total": 600_000,
        "remus_epoch_disk_bytes_total": 2 * 8192,
        "remus_epoch_down_seconds_count": 2,
        "remus_epoch_down_seconds_sum": 0.02,
        "remus_epoch_period_seconds_count": 1,
        "remus_epoch_dirty_pages_sum": 200,
        "remus_epoch_disk_ack_seconds_count": 2,
    }
    assert {name: value(found, name, domain="web1") for name in expected} == expected
    assert value(found, "remus_domain_info", domain="web1", uuid=UUID, peer="beta") == 1


def test_what_is_known_of_the_host() -> None:
    found = read(FULL)
    assert value(found, "remus_build_info", host="alpha", version="0.1.0", xen_version="4.20") == 1
    expected = {
        "remus_supervisor_up": 1,
        "remus_host_free_memory_bytes": 1 << 30,
        "remus_witness_up": 1,
        "remus_witness_answered_timestamp_seconds": 1.7e9,
        "remus_certificate_expiry_timestamp_seconds": 1.8e9,
        "remus_certificate_usable": 1,
        "remus_watchdog_armed": 1,
        "remus_watchdog_problem": 0,
    }
    assert {name: value(found, name) for name in expected} == expected
    assert value(found, "process_resident_memory_bytes") or 0 > 1 << 20


def test_what_is_not_known_has_no_series() -> None:
    names = {name for name, _ in read(host())}
    assert {name for name in names if name.startswith("remus_")} == {"remus_build_info", "remus_supervisor_up"}
    asked = {name for name, _ in read(host(witness=WitnessView(), certificate=CertificateView(None, usable=False)))}
    assert not asked & {"remus_witness_up", "remus_certificate_expiry_timestamp_seconds"}
    assert "remus_certificate_usable" in asked


def test_exactly_one_state_and_one_role() -> None:
    found = read(FULL)
    for name, of in (("remus_domain_state", FULL.guests), ("remus_domain_role", FULL.guests)):
        sums: Counter[str] = Counter()
        for (family, labels), number in found.items():
            if family == name:
                sums[dict(labels)["domain"]] += int(number)
        assert sums == {each.status.domain: 1 for each in of}
    assert value(found, "remus_domain_state", domain="sql1", state="seeding") == 1
    assert value(found, "remus_domain_state", domain="sql1", state="protected") == 0
    states = {dict(labels)["state"] for name, labels in found if name == "remus_domain_state"}
    assert states == set(get_args(State))


def test_a_name_is_escaped() -> None:
    assert value(read(FULL), "remus_heard_age_seconds", domain='db"1\\\n') == 0.1


def test_a_guest_without_a_role_has_a_state_alone() -> None:
    names = {name for name, labels in read(FULL) if ("domain", "old1") in labels}
    assert names == {"remus_domain_state", "remus_domain_role"}


def test_a_resync() -> None:
    found = read(FULL)
    series = {"domain": "sql1", "stage": "memory"}
    assert value(found, "remus_resync_completed_bytes", **series) == 40960
    assert value(found, "remus_resync_size_bytes", **series) == 4 * 40960
    assert value(found, "remus_resync_remaining_seconds", **series) == 6
    assert value(found, "remus_domain_problem", domain="sql1") == 1
    disks = read(host(guest("seeding", seeding=Seeding(10, 40, "bytes"))))
    assert value(disks, "remus_resync_completed_bytes", domain="web1", stage="disks") == 10
    assert value(disks, "remus_resync_remaining_seconds", domain="web1", stage="disks") is None


def test_a_disk() -> None:
    found = read(FULL)
    expected = {"remus_disk_size_bytes": 1 << 30, "remus_disk_sent_bytes_total": 4096, "remus_disk_problem": 1}
    assert {name: value(found, name, domain="web1", vdev="xvda") for name in expected} == expected


def test_a_member_of_a_group() -> None:
    cost = ProtectionCost(2.5, 4096, (PartCost("disks", 2.5, 4096),))
    members = (MemberStatus(domain="app1", memory_kib=2048, down_ms_last=12.5, cost=cost),)
    found = read(host(guest(name="shop", members=members), guest("ready", "backup", "shop2", members=members)))
    assert value(found, "remus_member_memory_bytes", domain="shop", member="app1") == 2 << 20
    assert value(found, "remus_member_down_seconds", domain="shop", member="app1") == 0.0125
    assert value(found, "remus_member_memory_bytes", domain="shop2", member="app1") == 2 << 20
    assert value(found, "remus_member_down_seconds", domain="shop2", member="app1") is None
    series = {"domain": "shop", "member": "app1", "part": "disks"}
    assert value(found, "remus_member_protection_cpu_seconds_total", **series) == 2.5
    assert value(found, "remus_member_protection_memory_bytes", **series) == 4096


def test_what_protections_cost() -> None:
    parts = (PartCost("checkpoints", 41.5, 8 << 20), PartCost("disks", 2.25, 38 << 20))
    found = read(
        host(
            guest(cost=ProtectionCost(43.75, 46 << 20, parts)),
            guest("ready", "backup", "db1", cost=ProtectionCost(7.0, 1 << 20, (PartCost("copy", 7.0, 1 << 20),))),
            guest("seeding", name="sql1"),
            shared_cpu_seconds=99.5,
            shared_memory_bytes=60 << 20,
        )
    )
    cpu, memory = "remus_protection_cpu_seconds_total", "remus_protection_memory_bytes"
    assert value(found, cpu, domain="web1", part="checkpoints") == 41.5
    assert value(found, cpu, domain="web1", part="disks") == 2.25
    assert value(found, memory, domain="web1", part="disks") == 38 << 20
    assert value(found, cpu, domain="db1", part="copy") == 7.0
    assert {dict(labels)["domain"] for name, labels in found if name in (cpu, memory)} == {"web1", "db1"}
    assert value(found, "remus_shared_cpu_seconds_total") == 99.5
    assert value(found, "remus_shared_memory_bytes") == 60 << 20


def test_phases() -> None:
    found = read(FULL)
    for phase in PHASES:
        assert value(found, "remus_epoch_phase_seconds_count", domain="web1", phase=phase) == 2
        assert value(found, "remus_epoch_phase_seconds_bucket", domain="web1", phase=phase, le="0.001") == 0
        assert value(found, "remus_epoch_phase_seconds_bucket", domain="web1", phase=phase, le="0.0025") == 2
        assert value(found, "remus_epoch_phase_seconds_bucket", domain="web1", phase=phase, le="+Inf") == 2


def test_names_follow_the_conventions() -> None:
    for family in metrics.families(FULL):
        assert re.fullmatch(r"remus_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_total", "_ms", "_milliseconds", "_kib", "_count", "_sum"))


def test_a_bound_belongs_to_its_bucket() -> None:
    found = Distribution((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.0, 2.5):
        found.add(number)
    assert found.cumulative() == [(1.0, 2), (2.0, 4), (float("inf"), 5)]
    assert (found.count, found.sum) == (5, 7.5)


def test_a_copy_stays_as_it_is() -> None:
    first = figures()
    second = first.copy()
    first.add(
        dict.fromkeys(PHASES, 1.0),
        down=1.0,
        period=1.0,
        disk_ack=0.0,
        pages=1,
        page_bytes=1,
        sent_bytes=1,
        disk_bytes=1,
    )
    assert (second.down.count, second.phases["ack"].count, second.memory_bytes) == (2, 2, 819200)
    assert (first.down.count, first.phases["ack"].count, first.memory_bytes) == (3, 3, 819201)
