"""Hosts that boot from a disk of their own: its first sectors, their command line, what they are waited for."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from lab import boot_disk
from lab.bare import FILE_SYSTEM, write_disk
from lab.cli import main, parser, settings_for
from lab.errors import LabError
from lab.hosts import BARE_USABLE, Artefacts, Host
from lab.pair import Pair
from lab.progress import Progress
from lab.qemu import LAB_ARGUMENTS, LAB_XEN_ARGUMENTS, NO_CMPXCHG16B, BootFiles, argv
from lab.recipe import Recipe
from lab.spec import HOSTS, WITNESS, Paths, Settings, save_settings

BOOT = bytes(range(256)) + bytes(254) + b"\x55\xaa"
BARE = Settings(hosts="bare")


def files(folder: Path) -> BootFiles:
    return BootFiles(*(folder / name for name in ("xen", "kernel", "initrd", "disk", "guest", "volume", "console")))


def test_the_boot_sector_has_grubs_code_and_one_active_partition() -> None:
    sector = boot_disk.boot_sector(BOOT, 0x01020304, 8192)
    assert len(sector) == 512
    assert sector[:440] == BOOT[:440]
    assert sector[440:446] == b"\x04\x03\x02\x01\0\0"
    active, _, kind, _, first, count = struct.unpack("<B3sB3sII", sector[446:462])
    assert (active, kind, first, first + count) == (0x80, 0x83, 2048, 8192)
    assert sector[462:] == bytes(48) + b"\x55\xaa"


def test_what_is_no_boot_sector_or_too_large_is_refused() -> None:
    with pytest.raises(LabError, match="not a boot sector"):
        boot_disk.head(BOOT[:-2] + b"\0\0", b"", 1, 8192)
    assert len(boot_disk.head(BOOT, bytes(2047 * 512), 1, 8192)) == 1 << 20
    with pytest.raises(LabError, match="do not fit"):
        boot_disk.head(BOOT, bytes(2047 * 512 + 1), 1, 8192)


def test_a_disk_holds_grub_and_a_file_system_that_grub_can_read(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk.img"
    grub = root / "boot/grub/i386-pc"
    grub.mkdir(parents=True)
    (grub / "boot.img").write_bytes(BOOT)
    (grub / "core.img").write_bytes(b"core")
    write_disk(root, disk, 64)
    assert disk.stat().st_size == 64 << 20
    assert disk.stat().st_blocks * 512 < 16 << 20, "sparse"
    assert disk.read_bytes()[512:516] == b"core"
    said = subprocess.run(
        ["dumpe2fs", "-h", f"{disk}?offset={1 << 20}"], capture_output=True, text=True, check=True
    ).stdout
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    assert facts["Filesystem UUID"].strip() == FILE_SYSTEM
    assert int(facts["Block count"]) * int(facts["Block size"]) == 63 << 20
    assert not {"orphan_file", "metadata_csum_seed"} & set(facts["Filesystem features"].split())


def test_a_bare_host_boots_from_its_disk_and_is_told_who_it_is(tmp_path: Path) -> None:
    words = argv(HOSTS[1], BARE, files(tmp_path), "AAAA+/=", (7, 8), kvm=False)
    assert not {"-kernel", "-initrd", "-append"} & set(words)
    assert words[words.index("-fw_cfg") + 1] == "name=opt/remus-lab/identity,string=beta 12 AAAA+/="
    drives = [words[place + 1] for place, word in enumerate(words) if word == "-drive"]
    assert drives[0].startswith(f"file={tmp_path}/disk,if=virtio,format=qcow2"), "the first disk is what the BIOS boots"
    assert len(drives) == 3
    assert "-no-reboot" not in words, "it is rebooted into Xen"


def test_networks_and_devices_are_those_of_the_other_hosts(tmp_path: Path) -> None:
    def rest(settings: Settings) -> list[str]:
        words = argv(HOSTS[0], settings, files(tmp_path), "AAAA", (7, 8), kvm=False)
        for option in ("-fw_cfg", "-kernel", "-initrd", "-append"):
            if option in words:
                del words[words.index(option) : words.index(option) + 2]
        return words

    assert rest(BARE) == rest(Settings())


def test_the_witness_is_the_same_in_both_labs(tmp_path: Path) -> None:
    words = [argv(WITNESS, settings, files(tmp_path), "AAAA", (7, 8), kvm=False) for settings in (BARE, Settings())]
    assert words[0] == words[1]


@pytest.mark.parametrize(("hosts", "base"), [("bare", "/bare/disk.img"), ("xen", "/image/root.img")])
def test_the_disk_is_made_from_the_image_of_its_kind(
    hosts: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr("lab.hosts.run", lambda words: made.append(list(words)))
    artefacts = Artefacts(image=Path("/image"), guest=Path("/guest"), disk=Path("/disk"), bare=Path("/bare"))
    settings = Settings(hosts=hosts)
    Host(HOSTS[0], Paths(tmp_path, tmp_path), settings).ensure_disk(artefacts, fresh=False)
    assert [words[words.index("-b") + 1] for words in made] == [base, "/disk/disk.img"]
    made.clear()
    Host(WITNESS, Paths(tmp_path, tmp_path), settings).ensure_disk(artefacts, fresh=False)
    assert [words[words.index("-b") + 1] for words in made] == ["/image/root.img"]


def test_a_bare_host_is_usable_without_xen() -> None:
    done = subprocess.run(["sh", "-c", BARE_USABLE], capture_output=True, text=True, check=True)
    assert done.stdout == Path("/proc/sys/kernel/hostname").read_text()


def test_what_emulation_needs_is_in_the_images_boot_settings() -> None:
    script = f"{Recipe(13).boot_settings}\necho $GRUB_CMDLINE_LINUX; echo $GRUB_CMDLINE_LINUX_XEN_REPLACE; echo $GRUB_CMDLINE_XEN"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    plain, dom0, xen = done.stdout.splitlines()
    assert plain == f"console=ttyS0,115200 {LAB_ARGUMENTS}"
    assert dom0 == f"console=hvc0 {LAB_ARGUMENTS}"
    assert xen == LAB_XEN_ARGUMENTS
    assert NO_CMPXCHG16B in LAB_ARGUMENTS.split()
    assert "dom0_mem" not in xen, "the role's affair"


def test_the_kind_of_the_hosts_is_chosen_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(tmp_path, tmp_path)
    assert settings_for(parser().parse_args(["up", "--hosts", "bare"]), paths).hosts == "bare"
    save_settings(paths, Settings(hosts="bare", namespace="remus-lab-unit"))
    assert settings_for(parser().parse_args(["up"]), paths).hosts == "bare"
    assert main(["--state", str(tmp_path), "up", "--hosts", "xen"]) == 1
    assert "is up with hosts bare, not xen; take it down first" in capsys.readouterr().err


def test_bare_hosts_have_no_other_hypervisor(tmp_path: Path) -> None:
    settings = Settings(hosts="bare", hypervisor="shadow", debian=12)
    with pytest.raises(LabError, match="boot the Xen that is installed on them"):
        Pair(Paths(tmp_path, tmp_path), settings, Progress(quiet=True)).require_hypervisor()


def test_settings_of_an_older_lab_are_read(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"debian": 12, "ssh_base_port": 2211}')
    assert settings_for(parser().parse_args(["status"]), Paths(tmp_path, tmp_path)).hosts == "xen"
