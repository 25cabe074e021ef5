"""Real fence agents of Debian's, for tests.

Each is where REMUS_FENCE_DUMMY or REMUS_FENCE_IPMILAN says, in the virtual environment (`make verifier` puts it there) or in
/usr/sbin.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from xen_checker import LEFT_OUT

from remus_agent.fence_config import AGENTS


def fence_agent(name: str) -> Path:
    """The agent of this name. Without it the test fails, unless what is fetched is left out on purpose."""
    named = os.environ.get(f"REMUS_{name.upper()}")
    candidates = (*([Path(named)] if named else []), Path(sys.prefix, "share/fence", name), AGENTS / name)
    found = next((path for path in candidates if path.is_file()), None)
    if found is not None:
        return found
    if os.environ.get(LEFT_OUT) == "1":
        pytest.skip(f"{name} is left out by {LEFT_OUT}=1")
    pytest.fail(f"{name} is at none of: {', '.join(map(str, candidates))}; `make verifier` fetches it", pytrace=False)
