"""What systemd counts that our units leave open, without starting them; the scenario `protect` asks the same of running ones."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import jinja2
import pytest

ROOT = Path(__file__).resolve().parents[3]
PROTECT = ROOT / "molecule/protect/tests/test_protect.py"
UNITS = sorted((ROOT / "remus_agent/units").glob("*.service"))
LOW = 30
"""Tenths. A unit that is above it says why, where it names what it does not take away."""
ETCD = """\
[Unit]
Description=etcd as Debian's package has it
[Service]
Type=notify
User=etcd
PermissionsStartOnly=true
ExecStart=/usr/bin/etcd
LimitNOFILE=65536
"""


def limits() -> dict[str, int]:
    """What the scenario allows each unit."""
    for node in ast.parse(PROTECT.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPOSURE":
            found: dict[str, int] = ast.literal_eval(node.value)
            return found
    raise AssertionError("the scenario has no limits")


def exposure(unit: Path) -> int:
    """Tenths, as systemd of this machine counts them."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = re.search(r"Overall exposure level for \S+: (\d+)\.(\d)", done.stdout)
    assert said, done.stdout
    return int(said[1]) * 10 + int(said[2])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_exposed_no_more_than_the_scenario_allows(unit: Path) -> None:
    limit = limits()[unit.name]
    assert exposure(unit) <= limit
    if limit > LOW:
        assert "So no private network" in unit.read_text(), "the reason"


def test_so_is_etcd_with_our_drop_in(tmp_path: Path) -> None:
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701  no HTML
    text = (ROOT / "roles/remus_witness/templates/etcd.service.j2").read_text()
    ours = environment.from_string(text).render(
        remus_witness_tls_dir="/etc/remus/tls",
        remus_witness_data_dir="/var/lib/etcd/remus",
        __remus_witness_given="REMUS_CERTIFICATES=",
        __remus_witness_confined="REMUS_DROP_IN=",
    )
    unit = tmp_path / "etcd.service"
    unit.write_text(ETCD + ours)
    assert exposure(unit) <= LOW
    unit.write_text(ETCD)
    assert exposure(unit) > LOW, "without it"
