"""What `tools/setup.sh --controller` installs is a part of what everything is tested with, and is whole."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def same(name: str) -> str:
    """A distribution's name as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, list[str]]:
    """Lines of each distribution in a resolved file, without remarks."""
    text = (ROOT / "requirements" / name).read_text()
    found = re.findall(r"^([\w.-]+)(==.*?)(?=^\w|\Z)", text, re.MULTILINE | re.DOTALL)
    return {
        same(package): [line.strip() for line in rest.splitlines() if not line.lstrip().startswith("#")]
        for package, rest in found
    }


CONTROLLER, EVERYTHING = pins("controller.txt"), pins("dev.txt")


def test_its_versions_and_hashes_are_those_of_everything() -> None:
    for name, lines in CONTROLLER.items():
        assert lines == EVERYTHING[name], name
        assert any("--hash=sha256:" in line for line in lines)


def test_it_is_whole_and_has_nothing_for_tests() -> None:
    wanted = (ROOT / "requirements/controller.in").read_text().splitlines()
    todo = [same(line) for line in wanted if line and not line.startswith(("#", "-"))]
    assert set(todo) >= {"ansible-core", "paramiko"}
    needed: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            requires = [line for line in metadata.requires(name) or [] if "extra ==" not in line]
            todo += [other for line in requires if (other := same(re.split(r"[^\w.-]", line)[0])) in EVERYTHING]
    assert set(CONTROLLER) == needed
    assert "atheris" not in CONTROLLER


def test_the_script_installs_it() -> None:
    script = (ROOT / "tools/setup.sh").read_text()
    assert "--controller) requirements=requirements/controller.txt" in script
    assert '--require-hashes -r "$requirements"' in script
