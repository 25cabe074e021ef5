"""What the HTTP endpoint is made with costs time to load on a slow host: only who has configured it waits for that."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "{'h11', 'prometheus_client', 'http.server', 'remus_agent.adapters.http.server', 'remus_agent.services.monitoring'}"
)


def test_an_agent_without_it_loads_nothing_of_it() -> None:
    code = f"import sys, remus_agent.__main__\nsys.exit(', '.join({HEAVY} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_agent_with_it_finds_it() -> None:
    code = "import remus_agent.adapters.http.server, remus_agent.services.monitoring"
    subprocess.run([sys.executable, "-c", code], check=True)
