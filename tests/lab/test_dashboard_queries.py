"""A real Prometheus scrapes the agents of the lab's pair, by what the role remus_monitoring renders, while a guest is protected
and its clients write; every query of the dashboard and every rule is asked of it.

Takes the guest to alpha, protected to beta, and leaves it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pair import agent
from pair.hosts import GUEST
from pair.load import load
from pair.protection import ensure_protected
from pair.wait import until
from prometheus_server import Place, Prometheus, without_a_number
from scraped import scraping

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

MAY_BE_EMPTY: set[Place] = {
    ("Every witness is reached", "A"),
    ("Certificate that ends first", "A"),
    ("What a host needs", "B"),
    ("What a host needs", "C"),
    ("What a host needs", "D"),
    ("Alerts that fire", "A"),
    ("Full copy at the start of a session", "A"),
    ("What the full copy takes yet", "A"),
}
"""A pair may be without a witness, TLS and a watchdog; alerts fire where something is wrong, and a full copy is over by then."""


@pytest.fixture(scope="module", autouse=True)
def _lab(lab: dict[str, Any]) -> None:
    """Skips with the lab's own reason when there is none."""


@pytest.fixture
def protected() -> agent.Status:
    """The guest on alpha, protected."""
    return ensure_protected()


def missing(server: Prometheus) -> set[Place]:
    """Queries that show nothing although they have to."""
    return without_a_number({**server.panels(), **server.recorded()}) - MAY_BE_EMPTY


def test_the_dashboard_and_the_rules_on_a_protected_guest(protected: agent.Status, tmp_path: Path) -> None:
    with load(tmp_path / "history.jsonl"), scraping(tmp_path) as server:
        until(
            "alpha protects the guest",
            lambda: server.value(f'remus_domain_protected{{instance="alpha", domain="{GUEST}"}}'),
            timeout=120,
        )
        until("every query shows something", lambda: missing(server), lambda found: not found, timeout=120, every=2)
        assert server.wrong() == []
        assert [labels for labels in server.firing() if labels["severity"] == "critical"] == []
        assert "level=error" not in server.log
