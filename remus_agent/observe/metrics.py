"""Metrics of one moment of a host, as families that prometheus_client writes in the format that a scraper asks for.

Names and units follow Prometheus's conventions. What is not configured or not known has no series, rather than one that looks
like a value. Loaded only where the HTTP endpoint is configured: prometheus_client takes long to import on a slow host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, get_args

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from remus_agent.observe.figures import Distribution, EpochFigures
from remus_agent.observe.health import marks
from remus_agent.observe.status import ProtectionCost, Role, State, Status
from remus_agent.observe.view import GuestView, HostView
from remus_agent.protocol.stream.constants import PAGE_SIZE

STATES: Final[tuple[str, ...]] = get_args(State)
ROLES: Final[tuple[str, ...]] = get_args(Role)
_DOMAIN: Final = ("domain",)
_DISK: Final = ("domain", "vdev")
Value = Callable[[GuestView], float | None]
Each = Callable[[EpochFigures], float]


def page(view: HostView, accept: str) -> tuple[str, bytes]:
    """Content type and text of the page. accept: the request's Accept header. Reads /proc; takes milliseconds, so it belongs into
    a thread."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(_Page(view))


class _Page(Collector):
    """What the encoders of prometheus_client go through."""

    def __init__(self, view: HostView) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        yield from families(self._view)
        yield from ProcessCollector(registry=None).collect()


def families(view: HostView) -> Iterator[Metric]:
    """Every family of this host; one without a series is left out."""
    for family in (
        *_of_host(view),
        *_of_guests(view.guests),
        *_of_disks(view.guests),
        *_of_members(view.guests),
        *_of_costs(view),
        *_of_epochs(view.guests),
    ):
        if family.samples:
            yield family


def _of_host(view: HostView) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "remus_build_info", "The agent that runs here.", labels=("host", "version", "xen_version")
    )
    build.add_metric((view.host, view.version, view.xen_version or ""), 1)
    yield build
    yield _single(
        "remus_supervisor_up", "Whether the supervisor is there, without which no guest is suspended.", view.supervisor
    )
    yield _single("remus_host_free_memory_bytes", "Memory that Xen could give to a copy.", view.free_memory_bytes)
    if view.witness is not None:
        yield _single(
            "remus_witness_up", "Whether a majority of the witness answers this host.", view.witness.reachable
        )
        yield _single(
            "remus_witness_answered_timestamp_seconds", "When the witness last answered.", view.witness.answered
        )
    if view.certificate is not None:
        expires, usable = view.certificate.expires, view.certificate.usable
        yield _single("remus_certificate_expiry_timestamp_seconds", "When this host's certificate expires.", expires)
        yield _single("remus_certificate_usable", "Whether peers accept this host's certificate.", usable)
    if view.watchdog is not None:
        armed, problem = view.watchdog.armed, view.watchdog.problem
        yield _single("remus_watchdog_armed", "Whether Xen resets this host when its agent does not come back.", armed)
        yield _single("remus_watchdog_problem", "Whether the watchdog cannot be armed, petted or disarmed.", problem)


def _of_guests(guests: Iterable[GuestView]) -> Iterator[Metric]:
    mine = [guest for guest in guests if guest.status.role != "none"]
    primaries = [guest for guest in mine if guest.status.role == "primary"]
    backups = [guest for guest in mine if guest.status.role == "backup"]

    info = GaugeMetricFamily(
        "remus_domain_info", "A guest that this host is primary or backup of.", labels=("domain", "uuid", "peer")
    )
    for guest in mine:
        info.add_metric((guest.status.domain, guest.uuid, guest.status.peer or ""), 1)
    yield info
    yield _one_of("remus_domain_role", "Which role this host has.", "role", ROLES, guests, lambda status: status.role)
    yield _one_of(
        "remus_domain_state", "What that role is doing.", "state", STATES, guests, lambda status: status.state
    )

    def gauge(name: str, text: str, of: Iterable[GuestView], value: Value) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=_DOMAIN)
        for guest in of:
            found = value(guest)
            if found is not None:
                family.add_metric((guest.status.domain,), found)
        return family

    yield gauge(
        "remus_domain_owned",
        "Whether the guest runs here and nowhere else, by what this agent knows.",
        mine,
        lambda guest: marks(guest.status).owned,
    )
    yield gauge(
        "remus_domain_protected",
        "Whether epochs of it are committed.",
        primaries,
        lambda guest: marks(guest.status).protected,
    )
    yield gauge(
        "remus_domain_ready",
        "Whether this host would serve it were the other one lost now.",
        mine,
        lambda guest: marks(guest.status).ready,
    )
    yield gauge(
        "remus_domain_problem",
        "Whether its status has a reason, see `remusctl status`.",
        mine,
        lambda guest: guest.status.reason is not None,
    )
    yield gauge("remus_domain_generation", "Generation of its ownership.", mine, lambda guest: guest.status.generation)
    yield gauge(
        "remus_domain_state_age_seconds", "How long it has been in its state.", mine, lambda guest: guest.status.since
    )
    yield gauge("remus_domain_memory_bytes", "Memory of the guest.", mine, lambda guest: guest.memory_bytes)
    yield gauge(
        "remus_epoch_committed",
        "Newest epoch of the session that is committed.",
        mine,
        lambda guest: guest.status.committed_epoch,
    )
    yield gauge(
        "remus_epoch_interval_seconds",
        "Wanted time between two checkpoints.",
        primaries,
        lambda guest: guest.status.interval_ms / 1000,
    )
    yield gauge(
        "remus_ack_age_seconds",
        "Since the backup last acknowledged.",
        primaries,
        lambda guest: guest.status.last_ack_age,
    )
    yield gauge(
        "remus_heard_age_seconds",
        "Since the backup last heard of the primary.",
        backups,
        lambda guest: guest.status.last_ack_age,
    )
    yield gauge(
        "remus_output_held_bytes",
        "Output that waits for an acknowledgement.",
        primaries,
        lambda guest: guest.status.held_bytes,
    )
    yield gauge(
        "remus_output_held_frames",
        "Frames that wait for an acknowledgement.",
        primaries,
        lambda guest: guest.status.held_packets,
    )
    yield gauge(
        "remus_output_limit_bytes",
        "Most output that is held for one interface.",
        primaries,
        lambda guest: guest.status.output_limit_bytes,
    )
    dropped = CounterMetricFamily(
        "remus_output_dropped_frames", "Frames lost because the buffer was full.", labels=_DOMAIN
    )
    for guest in primaries:
        dropped.add_metric((guest.status.domain,), guest.status.dropped_packets)
    yield dropped
    yield from _of_resync(primaries)


def _of_resync(primaries: Iterable[GuestView]) -> Iterator[Metric]:
    labels = ("domain", "stage")
    done = GaugeMetricFamily(
        "remus_resync_completed_bytes", "Of the full copy that a session begins with.", labels=labels
    )
    size = GaugeMetricFamily(
        "remus_resync_size_bytes", "What that copy will be, as far as is known now.", labels=labels
    )
    left = GaugeMetricFamily("remus_resync_remaining_seconds", "What it takes yet at its rate of now.", labels=labels)
    for guest in primaries:
        seeding = guest.status.seeding
        if seeding is None:
            continue
        stage, unit = ("memory", PAGE_SIZE) if seeding.unit == "pages" else ("disks", 1)
        series = (guest.status.domain, stage)
        done.add_metric(series, seeding.done * unit)
        size.add_metric(series, seeding.total * unit)
        if seeding.left is not None:
            left.add_metric(series, seeding.left)
    yield from (done, size, left)


def _of_disks(guests: Iterable[GuestView]) -> Iterator[Metric]:
    size = GaugeMetricFamily("remus_disk_size_bytes", "Size of a protected disk.", labels=_DISK)
    sent = CounterMetricFamily("remus_disk_sent_bytes", "What of it travelled in the session.", labels=_DISK)
    problem = GaugeMetricFamily(
        "remus_disk_problem", "Whether something is wrong with it although the guest goes on.", labels=_DISK
    )
    for guest in guests:
        for disk in guest.status.disks if guest.status.role == "primary" else ():
            series = (guest.status.domain, disk.vdev)
            size.add_metric(series, disk.size)
            sent.add_metric(series, disk.sent)
            problem.add_metric(series, disk.problem is not None)
    yield from (size, sent, problem)


def _of_members(guests: Iterable[GuestView]) -> Iterator[Metric]:
    labels = ("domain", "member")
    memory = GaugeMetricFamily("remus_member_memory_bytes", "Memory of one guest of a group.", labels=labels)
    down = GaugeMetricFamily(
        "remus_member_down_seconds", "For how long the group's last checkpoint had it suspended.", labels=labels
    )
    for guest in guests:
        for member in guest.status.members:
            series = (guest.status.domain, member.domain)
            memory.add_metric(series, member.memory_kib * 1024)
            if guest.status.role == "primary":
                down.add_metric(series, member.down_ms_last / 1000)
    yield from (memory, down)


def _of_costs(view: HostView) -> Iterator[Metric]:
    statuses = [guest.status for guest in view.guests]
    yield from _costs(
        "remus_protection",
        "the protection of this guest alone",
        ("domain",),
        [((one.domain,), one.cost) for one in statuses],
    )
    yield from _costs(
        "remus_member_protection",
        "one guest of a group alone",
        ("domain", "member"),
        [((one.domain, member.domain), member.cost) for one in statuses for member in one.members],
    )
    shared = CounterMetricFamily(
        "remus_shared_cpu_seconds",
        "Processor time of the agent's process for all guests together, or for none.",
        labels=(),
    )
    if view.shared_cpu_seconds is not None:
        shared.add_metric((), view.shared_cpu_seconds)
    yield shared
    yield _single(
        "remus_shared_memory_bytes",
        "Memory of the agent's process for all guests together, or for none.",
        view.shared_memory_bytes,
    )


def _costs(
    name: str, whose: str, labels: tuple[str, ...], costs: Iterable[tuple[tuple[str, ...], ProtectionCost | None]]
) -> Iterator[Metric]:
    """Each part of each of them."""
    labels = (*labels, "part")
    cpu = CounterMetricFamily(
        f"{name}_cpu_seconds", f"Processor time of dom0 for {whose}, since the agent started.", labels=labels
    )
    memory = GaugeMetricFamily(f"{name}_memory_bytes", f"Memory of dom0 for {whose}.", labels=labels)
    for series, cost in costs:
        for each in cost.parts if cost is not None else ():
            cpu.add_metric((*series, each.part), each.cpu_seconds)
            memory.add_metric((*series, each.part), each.memory_bytes)
    yield from (cpu, memory)


def _of_epochs(guests: Iterable[GuestView]) -> Iterator[Metric]:
    known = [(guest.status.domain, guest.figures) for guest in guests if guest.figures is not None]
    with_disks = [
        (guest.status.domain, guest.figures) for guest in guests if guest.figures is not None and guest.status.disks
    ]

    phases = HistogramMetricFamily(
        "remus_epoch_phase_seconds", "Parts of an epoch, one after the other.", labels=("domain", "phase")
    )
    for domain, figures in known:
        for phase, distribution in figures.phases.items():
            _add(phases, (domain, phase), distribution)
    yield phases

    def histogram(
        name: str, text: str, of: Callable[[EpochFigures], Distribution], among: list[tuple[str, EpochFigures]]
    ) -> Metric:
        family = HistogramMetricFamily(name, text, labels=_DOMAIN)
        for domain, figures in among:
            _add(family, (domain,), of(figures))
        return family

    yield histogram("remus_epoch_down_seconds", "How long the guest did not run.", lambda each: each.down, known)
    yield histogram(
        "remus_epoch_period_seconds", "From one epoch's start to the next.", lambda each: each.period, known
    )
    yield histogram("remus_epoch_dirty_pages", "Pages that the guest changed.", lambda each: each.pages, known)
    yield histogram(
        "remus_epoch_disk_ack_seconds",
        "From the end of sending until the last disk was acknowledged.",
        lambda each: each.disk_ack,
        with_disks,
    )

    def counter(name: str, text: str, of: Each) -> Metric:
        family = CounterMetricFamily(name, text, labels=_DOMAIN)
        for domain, figures in known:
            family.add_metric((domain,), of(figures))
        return family

    yield counter(
        "remus_epoch_memory_bytes", "Dirty memory of epochs, as it is in the guest.", lambda each: each.memory_bytes
    )
    yield counter("remus_epoch_sent_bytes", "What was sent of it.", lambda each: each.sent_bytes)
    yield counter("remus_epoch_disk_bytes", "What epochs wrote to disks.", lambda each: each.disk_bytes)


def _single(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=())
    if value is not None:
        family.add_metric((), value)
    return family


def _one_of(
    name: str, text: str, label: str, words: Iterable[str], guests: Iterable[GuestView], value: Callable[[Status], str]
) -> GaugeMetricFamily:
    """One series a word, of which exactly one is 1."""
    family = GaugeMetricFamily(name, text, labels=("domain", label))
    for guest in guests:
        for word in words:
            family.add_metric((guest.status.domain, word), value(guest.status) == word)
    return family


def _add(family: HistogramMetricFamily, series: tuple[str, ...], distribution: Distribution) -> None:
    buckets = [
        ("+Inf" if bound == float("inf") else str(float(bound)), count) for bound, count in distribution.cumulative()
    ]
    family.add_metric(series, buckets, distribution.sum)
