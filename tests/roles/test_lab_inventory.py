"""What the lab's inventories say of the controller itself, which is a host of none of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def value(host: str, variable: str, sources: list[str], **environment: str) -> Any:
    """What a variable of a host is. Nobody is connected to."""
    words = [word for source in sources for word in ("-i", source)]
    program = Path(sys.executable).with_name("ansible")
    usual = {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": "/root", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(
        [program, host, *words, "-m", "debug", "-a", f"var={variable}"],
        cwd=PROJECT,
        env={**usual, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.partition("=>")[2])[variable]


@pytest.mark.parametrize(
    "sources",
    [["inventories/lab"], ["inventories/lab", "inventories/lab_witness"], ["molecule/inventory/"]],
    ids=["lab", "witness", "molecule"],
)
def test_the_drills_client_is_reached_through_the_labs_network(sources: list[str]) -> None:
    said = value("localhost", "remus_drill_client_prefix", sources)
    assert Path(said[0]).resolve() == Path(sys.executable).resolve()  # one interpreter has several names
    assert said[1:] == [str(PROJECT / "roles/xen_lab/files/labctl"), "exec", "--"]


@pytest.mark.parametrize(("debian", "package"), [(12, "fence-agents"), (13, "fence-agents-ipmilan")])
def test_each_host_is_fenced_by_its_own_bmc(tmp_path: Path, debian: int, package: str) -> None:
    """As the other one's role sees it, with what labctl has made for this lab."""
    (tmp_path / "lab.json").write_text(json.dumps({"debian": debian}))
    for host in ("alpha", "beta"):
        (tmp_path / "bmc" / host).mkdir(parents=True)
        (tmp_path / "bmc" / host / "user").write_text(f"user-of-{host}")
        (tmp_path / "bmc" / host / "password").write_text(f"password-of-{host}")
    sources = ["inventories/lab", "inventories/lab_witness", "inventories/lab_fencing"]
    for host, other, port in (("alpha", "beta", 2212), ("beta", "alpha", 2211)):
        seen = value(host, f"hostvars.{other}.remus_fencing", sources, REMUS_LAB_DIR=str(tmp_path))
        assert seen["secrets"] == {"username": f"user-of-{other}", "password": f"password-of-{other}"}
        assert str(seen["options"]["ipport"]) == str(port)
        assert (seen["agent"], seen["required"], seen["package"]) == ("fence_ipmilan", True, [package, "ipmitool"])
