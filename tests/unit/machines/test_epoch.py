"""Output commit by itself: no order of events releases an epoch that is not acknowledged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent.errors import ReplicationError
from remus_agent.machines.epoch import OutputCommit


def test_an_epoch_is_released_after_memory_and_every_disk() -> None:
    commit = OutputCommit(disks=frozenset({"xvda", "xvdb"})).barrier(1)
    for step in (
        lambda c: c.memory_ack(1),
        lambda c: c.disk_ack(1, "xvda"),
    ):
        commit = step(commit)
        assert commit.releasable is None
    commit = commit.disk_ack(1, "xvdb")
    assert commit.releasable == 1
    assert commit.released(1).barrier(2).waiting == 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["barrier", "memory", "disk", "release"]), st.integers(1, 4)),
        max_size=30,
    )
)
def test_no_order_of_events_releases_too_early(steps: list[tuple[str, int]]) -> None:
    commit = OutputCommit(disks=frozenset({"xvda"}))
    acked: set[tuple[str, int]] = set()
    for what, epoch in steps:
        try:
            match what:
                case "barrier":
                    commit = commit.barrier(epoch)
                case "memory":
                    commit = commit.memory_ack(epoch)
                    acked.add(("memory", epoch))
                case "disk":
                    commit = commit.disk_ack(epoch, "xvda")
                    acked.add(("disk", epoch))
                case _:
                    commit = commit.released(epoch)
                    assert {("memory", epoch), ("disk", epoch)} <= acked
        except ReplicationError:
            continue


def test_a_barrier_before_the_release_is_refused() -> None:
    with pytest.raises(ReplicationError, match="not released"):
        OutputCommit().barrier(1).barrier(2)
