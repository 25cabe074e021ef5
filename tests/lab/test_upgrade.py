"""Another release on the lab's pair and back, host by host, under a client's load; and what a support bundle collects.

Takes the guest to alpha, protected to beta, and leaves it there, with the release that was there before.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import agent
from pair.hosts import GUEST, HOSTS, PROJECT, run, ssh_config
from pair.load import load, now
from pair.protection import ensure_protected, wait_protected

from remus_agent import __version__

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(5400)]

NEXT = f"{__version__}.post1"
NOT_COPIED = (".git", ".lab", ".venv", "results", "dist", ".*_cache", ".hypothesis", "__pycache__")
HELD_REPLIES = 60


@pytest.fixture
def newer(lab: dict[str, Any], tmp_path: Path) -> Path:
    """This bundle as its next release."""
    tree = tmp_path / "next"
    shutil.copytree(PROJECT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for name in ("pyproject.toml", "remus_agent/__init__.py"):
        path = tree / name
        text = path.read_text()
        assert text.count(f'"{__version__}"') == 1, name
        path.write_text(text.replace(f'"{__version__}"', f'"{NEXT}"'))
    return tree


@pytest.fixture
def protected(lab: dict[str, Any]) -> Iterator[agent.Status]:
    """The guest on alpha, protected to beta; afterwards both hosts have this release."""
    yield ensure_protected()
    if set(versions().values()) != {__version__}:
        playbook(PROJECT, "upgrade")


def playbook(tree: Path, name: str, *words: str) -> str:
    """What a playbook of a bundle says on the pair of this lab."""
    settings = (f"ANSIBLE_CONFIG={tree}/ansible.cfg", f"REMUS_LAB_DIR={ssh_config().parent}", "ANSIBLE_FORCE_COLOR=0")
    sources = ("-i", str(tree / "inventories/lab"))
    return run(
        ["env", *settings, "ansible-playbook", *sources, str(tree / f"playbooks/{name}.yml"), *words], timeout=1800
    )


def versions() -> dict[str, str]:
    """Of each host's agent."""
    return {host: str(agent.ask(host, "agent")["version"]) for host in HOSTS}


def test_a_release_comes_and_goes_under_load(protected: agent.Status, newer: Path, tmp_path: Path) -> None:
    marks = {}
    with load(tmp_path / "history.jsonl") as client:
        client.wait_for(HELD_REPLIES, 300)
        marks["forth"] = now()
        playbook(newer, "upgrade")
        assert set(versions().values()) == {NEXT}
        wait_protected()
        client.wait_for(HELD_REPLIES, 600)
        assert re.search(r"alpha +: .*changed=0 ", playbook(newer, "upgrade")), "nothing is left to do"
        marks["back"] = now()
        playbook(newer, "upgrade", "-e", "remus_upgrade_back=true")
        assert set(versions().values()) == {__version__}
        wait_protected()
        client.wait_for(HELD_REPLIES, 600)
        client.stop()
        proof = client.judge(marks)
    assert proof["verdict"] == "kept", proof["reasons"]
    print(f"upgraded and brought back; the client's longest gap: {proof['longest_gap']}")


def test_a_support_bundle_has_what_helps_and_no_secret(protected: agent.Status, tmp_path: Path) -> None:
    folder = tmp_path / "support"
    playbook(PROJECT, "support_bundle", "-e", f"remus_support_dir={folder}")
    for host in HOSTS:
        with tarfile.open(folder / f"{host}.tar.xz") as archive:
            found = {
                member.name.split("/", 1)[-1]: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive.getmembers()
                if member.isfile()
            }
        assert any(GUEST.encode() in content for content in found.values()), f"{host}: nothing of the guest"
        assert not [name for name, content in found.items() if b"PRIVATE KEY" in content]
        print(f"{host}: {len(found)} files, {sum(map(len, found.values()))} bytes: {', '.join(sorted(found))}")
