"""An image's package sources are those of the machine that builds it."""

from pathlib import Path

import pytest
from lab.archive import Source, for_release, machine_sources, parse_deb822, parse_one_line
from lab.errors import LabError

DEB822 = """\
# comment
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /key

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
"""


def test_deb822() -> None:
    assert parse_deb822(DEB822) == [
        Source("http://mirror.example/debian/", "bookworm"),
        Source("http://mirror.example/debian/", "bookworm-updates"),
        Source("http://mirror.example/security", "bookworm-security"),
    ]


def test_one_line_with_options_and_comments() -> None:
    text = "# deb http://no bookworm main\ndeb [arch=amd64 signed-by=/k] http://m.example/d bookworm main  # x\n"
    assert parse_one_line(text) == [Source("http://m.example/d", "bookworm")]


def test_release_is_replaced_and_others_are_left_out() -> None:
    sources = [
        Source("http://m/d/", "bookworm"),
        Source("http://m/s", "bookworm-security"),
        Source("http://tool.example", "tool-bookworm"),
        Source("http://m/b", "bookworm-backports"),
    ]
    expected = [Source("http://m/d", "trixie"), Source("http://m/s", "trixie-security")]
    assert for_release(sources, "bookworm", "trixie") == expected


def test_machine_without_debian_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    with pytest.raises(LabError, match="bookworm"):
        machine_sources("trixie", tmp_path)
    (tmp_path / "apt/sources.list.d/debian.sources").write_text(DEB822)
    assert machine_sources("trixie", tmp_path)[0] == Source("http://mirror.example/debian", "trixie")
