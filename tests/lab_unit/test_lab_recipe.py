"""The name of an image in the cache changes with everything that shapes the image, and with nothing else."""

import shutil
from pathlib import Path

import pytest
from lab.guest import configuration
from lab.recipe import ASSETS, Recipe, read_list
from lab.spec import GUESTS


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    copy = tmp_path / "assets"
    shutil.copytree(ASSETS, copy)
    return copy


def test_same_inputs_same_keys(assets: Path) -> None:
    assert Recipe(13).image_key == Recipe(13, assets=assets).image_key
    assert Recipe(13).guest_key == Recipe(13, assets=assets).guest_key


@pytest.mark.parametrize("name", sorted(str(p.relative_to(ASSETS)) for p in ASSETS.rglob("*") if p.is_file()))
def test_every_file_counts(assets: Path, name: str) -> None:
    before = Recipe(13, assets=assets)
    keys = before.image_key, before.guest_key
    with (assets / name).open("a") as file:
        file.write("extra-entry\n")
    image, guest = before.image_key, before.guest_key
    shapes_image = name.startswith("dom0/") or name in ("guest/packages.txt", "guest/modules.txt")
    assert (image != keys[0]) == shapes_image
    assert guest != keys[1]


def test_mode_counts(assets: Path) -> None:
    before = Recipe(13, assets=assets).image_key
    (assets / "dom0/customise").chmod(0o644)
    assert Recipe(13, assets=assets).image_key != before


def test_releases_and_sizes_differ() -> None:
    keys = {Recipe(12).image_key, Recipe(13).image_key, Recipe(13, disk_mib=8192).image_key}
    assert len(keys) == 3


def test_lists_ignore_comments_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# head\n\none  # why\n two\n")
    assert read_list(path) == ["one", "two"]


def test_each_type_of_guest_has_a_disk_of_its_own_on_one_image() -> None:
    recipes = [Recipe(13, guest) for guest in GUESTS]
    assert len({recipe.guest_key for recipe in recipes}) == len(GUESTS)
    assert len({recipe.image_key for recipe in recipes}) == 1


@pytest.mark.parametrize("guest", GUESTS)
def test_the_guests_configuration_says_its_type(guest: str) -> None:
    lines = configuration(Recipe(12, guest)).splitlines()
    assert f'type = "{guest}"' in lines
    assert not [line for line in lines if "$" in line]
    assert ('serial = "pty"' in lines) == (guest == "hvm")
    kernel = next(line for line in lines if line.startswith("extra"))
    assert ("console=ttyS0" in kernel) == (guest == "hvm")
    assert "console=hvc0" in kernel
