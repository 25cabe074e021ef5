"""What is asked of devices after a failover, on image files."""

import json
import os
import subprocess
import sys

import pytest
from proof import blocks
from proof.blocks import CHUNK, CannotLook, Digests, differences, digests, fsck, main


@pytest.fixture
def image(tmp_path):
    """A clean ext4 file system with files in it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"file{number}").write_bytes(os.urandom(5000))
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(path)], check=True)
    return path


def change(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def debugfs(path, request):
    subprocess.run(["debugfs", "-w", "-R", request, str(path)], check=True, capture_output=True)


def test_a_clean_file_system_needs_no_words(image, capsys):
    assert fsck(image) == ""
    assert main(["fsck", str(image)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("request_", ["clri file3", "freei file4", "set_inode_field file5 links_count 7"])
def test_damage_is_told_in_the_tools_words(image, request_, capsys):
    debugfs(image, request_)
    before = image.read_bytes()
    assert "file" in fsck(image)
    assert main(["fsck", str(image)]) == 1
    assert "Pass 1" in capsys.readouterr().out
    assert image.read_bytes() == before


def test_a_journal_that_was_not_replayed_is_not_clean(image):
    debugfs(image, "feature needs_recovery")
    assert "journal" in fsck(image)


def test_what_is_no_file_system_is_not_clean(tmp_path):
    path = tmp_path / "zeros"
    path.write_bytes(bytes(1 << 20))
    assert "superblock" in fsck(path)


def test_what_is_not_there_cannot_be_looked_at(tmp_path, monkeypatch, capsys):
    with pytest.raises(CannotLook):
        fsck(tmp_path / "none")
    assert main(["digest", str(tmp_path / "none")]) == 2
    assert main(["nonsense"]) == 2
    assert "none" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(CannotLook, match="e2fsck"):
        fsck(tmp_path / "file")


def test_equal_devices_are_equal(image, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(image.read_bytes())
    assert differences(digests(image), digests(other)) == []
    assert main(["compare", str(image), str(other)]) == 0


def test_every_differing_range_is_named(image, tmp_path, capsys):
    other = tmp_path / "other"
    other.write_bytes(image.read_bytes())
    for offset in (3 * CHUNK, 4 * CHUNK + 17, (8 << 20) - 1):
        change(other, offset, b"\xa5\x5a"[: 1 if offset % 2 else 2])
    assert differences(digests(image), digests(other)) == [
        f"bytes {3 * CHUNK} to {5 * CHUNK - 1}",
        f"bytes {7 * CHUNK} to {8 * CHUNK - 1}",
    ]
    assert main(["compare", str(image), str(other)]) == 1
    assert "bytes 3145728 to 5242879" in capsys.readouterr().out


def test_a_shorter_device_is_different_even_if_the_rest_is_zero(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(2 * CHUNK))
    other.write_bytes(bytes(2 * CHUNK + 100))
    assert differences(digests(one), digests(other)) == [
        f"{2 * CHUNK} bytes against {2 * CHUNK + 100}",
        f"bytes {2 * CHUNK} to {2 * CHUNK + 99}",
    ]


def test_digests_of_other_chunks_cannot_be_compared(image):
    with pytest.raises(ValueError, match="cannot be compared"):
        differences(digests(image), digests(image, CHUNK // 2))


def test_a_host_is_given_the_file_and_answers_with_digests(image):
    """As over ssh: the module is standard input, nothing of the project is there."""
    with open(blocks.__file__, "rb") as source:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-I", "-", "digest", str(image)], stdin=source, capture_output=True, cwd="/", check=True
        )
    assert Digests.from_json(done.stdout.decode()) == digests(image)
    assert json.loads(done.stdout)["size"] == 8 << 20
