"""The name of an image in the cache changes with everything that shapes the image, and with nothing else."""

import shutil
from pathlib import Path

import pytest
from lab.debian import GUARD
from lab.recipe import ASSETS, Recipe, read_list


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    copy = tmp_path / "assets"
    shutil.copytree(ASSETS, copy)
    return copy


def test_same_inputs_same_keys(assets: Path) -> None:
    assert Recipe(13).image_key == Recipe(13, assets).image_key
    assert Recipe(13).guest_key == Recipe(13, assets).guest_key
    assert Recipe(13).disk_key == Recipe(13, assets).disk_key
    assert Recipe(13).bare_key == Recipe(13, assets).bare_key


@pytest.mark.parametrize("name", sorted(str(p.relative_to(ASSETS)) for p in ASSETS.glob("*/**/*") if p.is_file()))
def test_every_file_counts(assets: Path, name: str) -> None:
    before = Recipe(13, assets)
    keys = before.image_key, before.guest_key, before.disk_key, before.bare_key
    with (assets / name).open("a") as file:
        file.write("extra-entry\n")
    image, guest, disk, bare = before.image_key, before.guest_key, before.disk_key, before.bare_key
    parts = name == "guest/packages.txt" or name.startswith("guest/modules")
    assert (image != keys[0]) == (parts or name.startswith("dom0/"))
    assert (guest != keys[1]) == (not name.startswith(("disk/", "bare/")))
    assert (disk != keys[2]) == name.startswith("disk/")
    assert (bare != keys[3]) == name.startswith("bare/")


def test_what_only_keeps_a_script_from_running_elsewhere_does_not_count(assets: Path) -> None:
    (guard,) = (path for path in assets.iterdir() if path.is_file())
    assert guard.name == GUARD
    guard.write_text("")
    assert Recipe(13, assets).image_key == Recipe(13).image_key


def test_mode_counts(assets: Path) -> None:
    before = Recipe(13, assets).image_key
    (assets / "dom0/customise").chmod(0o755)
    assert Recipe(13, assets).image_key != before


def test_releases_and_sizes_differ() -> None:
    keys = {Recipe(12).image_key, Recipe(13).image_key, Recipe(13, disk_mib=8192).image_key}
    assert len(keys) == 3
    bare = {Recipe(12).bare_key, Recipe(13).bare_key, Recipe(13, disk_mib=8192).bare_key}
    assert len(bare) == 3
    disks = {Recipe(12).disk_key, Recipe(13).disk_key, Recipe(13, guest_disk_mib=1024).disk_key}
    assert len(disks) == 3
    assert Recipe(13, disk_mib=8192).disk_key in disks


def test_lists_ignore_comments_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# head\n\none  # why\n two\n")
    assert read_list(path) == ["one", "two"]
