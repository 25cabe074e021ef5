"""A host with a protected guest is shut down in order, as by `systemctl poweroff`: its guest goes on, on the other one.

With a witness. The agent is stopped before xendomains shuts the guest down: its output is held from then on, so what the guest
does while it goes down never happened. The host is off within the time that Debian's xendomains gives its guests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import agent
from pair.guest import copies
from pair.hosts import GUEST, labctl, on, powered
from pair.load import load, now
from pair.protection import NOT_YET, wait_protected
from pair.wait import until
from witnessed import AUTOMATIC, BOOTED, kept, runs_on

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]

SHUT_DOWN = 900.0
"""Seconds for a host that is shut down: xendomains alone may wait for 300 of them, and for a guest that hangs it does."""


@pytest.fixture
def down_in_order(recorded: None) -> Iterator[None]:
    """alpha's xendomains runs, so it shuts guests down with the host; the host is on afterwards, whatever became of the test."""
    on("alpha", "systemctl start xendomains.service")
    yield
    labctl("start", "alpha")


def test_the_guest_of_a_host_that_is_shut_down_goes_on_from_its_last_commit(
    down_in_order: None, tmp_path: Path
) -> None:
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(60, 300)
        asked = now()
        on("alpha", "systemctl --no-block poweroff")
        until(
            "beta runs the guest", lambda: agent.status("beta"), lambda seen: seen["role"] == "primary",
            timeout=AUTOMATIC, passing=NOT_YET,
        )  # fmt: skip
        kept(client, {"alpha is asked to shut down": asked})
    until("alpha is off", lambda: powered("alpha"), lambda is_on: not is_on, timeout=SHUT_DOWN)
    runs_on("beta")

    labctl("start", "alpha")
    until("alpha's agent answers", lambda: agent.answers("alpha"), timeout=BOOTED, passing=NOT_YET)
    wait_protected(host="beta")
    assert not [copy for copy in copies("alpha") if copy.runs]
    assert GUEST in [copy.name for copy in copies("beta") if copy.runs]
