"""For the tests of every scenario: the project's `pair` package is importable, the hosts are reached by the lab's own ssh_config.

Testinfra reads an inventory without templating it, so the lab's cannot be used by it.
"""

import sys
from pathlib import Path

import pytest
import testinfra

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from pair.hosts import HOSTS, ssh_config


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    """Each host in turn, in place of the one that testinfra takes from an inventory."""
    return testinfra.get_host(f"ssh://{request.param}", ssh_config=str(ssh_config()))
