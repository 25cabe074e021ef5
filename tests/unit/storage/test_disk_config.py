"""disks.toml: strict, with every default where it is expected."""

from __future__ import annotations

import contextlib
import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remus_agent import disk_config
from remus_agent.disk_config import Disk, load, parse
from remus_agent.errors import ConfigError

STATE, RUN = Path("/var/lib/remus"), Path("/run/remus")
ENTRY = {"domain": "db1", "vdev": "xvda", "device": "/dev/vg0/db1"}


def text(*entries: dict[str, object]) -> str:
    lines = []
    for entry in entries:
        lines += ["[[disk]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    return "\n".join(lines)


def test_what_is_left_out_lies_below_the_state() -> None:
    (disk,) = parse(text(ENTRY), STATE, RUN)
    assert disk == Disk(
        "db1",
        "xvda",
        Path("/dev/vg0/db1"),
        RUN / "md/db1-xvda.md",
        STATE / "disks/db1-xvda.journal",
        disk_config.JOURNAL_BYTES,
    )
    assert (disk.name, disk.mapper) == ("remus-db1-xvda", Path("/dev/mapper/remus-db1-xvda"))


def test_no_file_means_no_disks(tmp_path: Path) -> None:
    assert load(tmp_path / "none", STATE, RUN) == ()
    (tmp_path / "empty").write_text("# nothing\n")
    assert load(tmp_path / "empty", STATE, RUN) == ()


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "disks.toml"
    path.write_text("[disk]\n")
    with pytest.raises(ConfigError, match=rf"{path}: only \[\[disk\]\] sections") as caught:
        load(path, STATE, RUN)
    assert "two brackets" in (caught.value.hint or "")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path, STATE, RUN)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, STATE, RUN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"devcie": "/dev/x"},
            "disk 1 has no key 'devcie'; allowed: device, domain, journal, journal_bytes, metadata, vdev",
        ),
        ({"domain": "../etc"}, "disk 1: domain must be text like db1, not '../etc'"),
        ({"domain": ""}, "domain must be text"),
        ({"domain": 7}, "domain must be text like db1, not 7"),
        ({"vdev": "vda"}, "vdev must be text like xvda, not 'vda'"),
        ({"vdev": "xvda-tap"}, "vdev must be text"),
        ({"device": "vg0/db1"}, "disk xvda of db1: device must be an absolute path"),
        ({"device": None}, "device must be an absolute path, not None"),
        ({"device": "/dev/a b"}, "device must be without spaces and backslashes"),
        ({"device": "/dev/a\\tb"}, "device must be without spaces"),
        ({"journal": "/dev/a\0"}, "journal must be without spaces"),
        ({"metadata": 1}, "metadata must be an absolute path"),
        ({"journal_bytes": 4096}, "journal_bytes must be a multiple of 4096 of at least 4194304"),
        ({"journal_bytes": 4194305}, "journal_bytes must be a multiple"),
        ({"journal_bytes": True}, "journal_bytes must be a multiple"),
        ({"metadata": "/dev/vg0/db1"}, "/dev/vg0/db1 has two uses: device of remus-db1-xvda, and metadata of"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    entry = {key: value for key, value in (ENTRY | change).items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        parse(text(entry), STATE, RUN)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"device": "/dev/other"}, "disk xvda of db1 is there twice"),
        ({"vdev": "xvdb"}, "/dev/vg0/db1 has two uses"),
        ({"vdev": "xvdb", "device": "/dev/b", "journal": "/dev/vg0/db1"}, "/dev/vg0/db1 has two uses"),
    ],
)
def test_nothing_has_two_uses(second: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text(ENTRY, ENTRY | second), STATE, RUN)


@pytest.mark.parametrize("broken", ["[[disk", "disk = 1", "disk = [1]", "[[disk]]\n[other]\nx = 1", "x = 1"])
def test_what_is_no_list_of_disks(broken: str) -> None:
    with pytest.raises(ConfigError):
        parse(broken, STATE, RUN)


names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+:@=-]{0,30}", fullmatch=True)
vdevs = st.from_regex(r"(xvd|hd|sd)[a-z]{1,2}[0-9]{0,3}", fullmatch=True)
devices = st.text(string.ascii_letters + string.digits + '/_-"\u00e9', max_size=20).map("/dev/".__add__)


@given(st.lists(st.tuples(names, vdevs), unique=True, max_size=6), st.data())
def test_every_sound_list_comes_back_as_it_was(disks: list[tuple[str, str]], data: st.DataObject) -> None:
    paths = data.draw(st.lists(devices.map(Path), min_size=len(disks), max_size=len(disks), unique=True))
    size = data.draw(st.integers(1024, 1 << 20)) * 4096
    listed = text(
        *(
            {"domain": name, "vdev": vdev, "device": str(path), "journal_bytes": size}
            for (name, vdev), path in zip(disks, paths, strict=True)
        )
    )
    found = parse(listed, STATE, RUN)
    assert [(disk.domain, disk.vdev, disk.device) for disk in found] == [
        (name, vdev, path) for (name, vdev), path in zip(disks, paths, strict=True)
    ]
    assert all(disk.journal_bytes == size for disk in found)
    assert all("/" not in disk.name for disk in found)


@given(st.text(max_size=200))
def test_anything_else_is_an_error_of_ours(content: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(content, STATE, RUN)
