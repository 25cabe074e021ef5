"""What GRUB starts by default, by menus as Debian's update-grub writes them; and who else has virtual machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.modules.conftest import load

HEAD = """\
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
   set next_entry=
else
   set default="{}"
fi
"""
MENU = """\
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-7e3b' {
\tlinux\t/boot/vmlinuz-6.12.0-amd64 root=UUID=7e3b ro quiet
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-7e3b' {
\tmenuentry 'Debian GNU/Linux, with Linux 6.12.0-amd64' --class debian {
\t\tlinux\t/boot/vmlinuz-6.12.0-amd64 root=UUID=7e3b ro quiet
\t}
}
menuentry 'Debian GNU/Linux, with Xen hypervisor' --class debian --class xen $menuentry_id_option 'xen-gnulinux-simple-7e3b' {
\tmultiboot2\t/boot/xen-4.20-amd64.gz placeholder dom0_mem=900M,max:900M ${xen_rm_opts}
\tmodule2\t/boot/vmlinuz-6.12.0-amd64 placeholder root=UUID=7e3b ro quiet
}
"""


@pytest.mark.parametrize(
    ("default", "entry", "xen"),
    [
        ("Debian GNU/Linux, with Xen hypervisor", "Debian GNU/Linux, with Xen hypervisor", True),
        ("0", "Debian GNU/Linux", False),
        ("2", "Debian GNU/Linux, with Xen hypervisor", True),
        ("1", "Advanced options for Debian GNU/Linux", False),
        ("${saved_entry}", None, None),
        ("Windows", None, None),
        ("7", None, None),
    ],
)
def test_the_default_is_looked_up(default: str, entry: str | None, xen: bool | None) -> None:
    assert load("xen_host_info").boot_menu.starts(HEAD.format(default) + MENU) == {"entry": entry, "xen": xen}


def test_no_menu_says_nothing() -> None:
    assert load("xen_host_info").boot_menu.starts("") == {"entry": None, "xen": None}


def test_settings_that_are_newer_than_the_menu_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("xen_host_info")
    menu, settings = tmp_path / "grub.cfg", tmp_path / "remus.cfg"
    monkeypatch.setattr(module, "MENU", str(menu))
    assert not module.boot(None)["outdated"]
    assert not module.boot(str(settings))["outdated"]
    settings.touch()
    assert module.boot(str(settings))["outdated"], "there is no menu yet"
    menu.write_text(HEAD.format("0") + MENU)
    os.utime(settings, (1, 1))
    assert module.boot(str(settings)) == {
        **module.boot(None),
        "outdated": False,
        "entry": "Debian GNU/Linux",
        "xen": False,
    }


def test_processes_with_virtual_machines_are_named(tmp_path: Path) -> None:
    module = load("xen_host_info")
    for number, opened in (
        ("12", "anon_inode:kvm-vm"),
        ("7", "anon_inode:kvm-vm"),
        ("3", "/dev/kvm"),
        ("self", "anon_inode:kvm-vm"),
    ):
        (tmp_path / number / "fd").mkdir(parents=True)
        (tmp_path / number / "fd/4").symlink_to(opened)
        (tmp_path / number / "comm").write_text("qemu\n")
    (tmp_path / "99").mkdir()
    assert module.other_guests(str(tmp_path)) == ["qemu (7)", "qemu (12)"]
