"""The command line of a host."""

from pathlib import Path

import pytest
from lab.accel import announced
from lab.qemu import NO_CMPXCHG16B, TCG_CPU, BootFiles, argv, marker
from lab.recipe import ASSETS
from lab.spec import HOSTS, WITNESS, WITNESS_MIB, Settings

FILES = BootFiles(
    xen=Path("/i/xen"),
    kernel=Path("/i/vmlinuz"),
    initrd=Path("/i/initrd.img"),
    disk=Path("/s,x/alpha/disk.qcow2"),
    guest_disk=Path("/g/guest.img"),
    volume=Path("/s,x/alpha/volume.qcow2"),
    console=Path("/s,x/alpha/console.log"),
)


def line(host: int = 0, debian: int = 13, kvm: bool = False) -> list[str]:
    return argv(HOSTS[host], Settings(debian=debian), FILES, "AAAAkey", (7, 8), kvm=kvm)


def after(words: list[str], option: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == option]


def test_emulation_switches_off_what_breaks_xen() -> None:
    assert after(line(), "-cpu") == [TCG_CPU]
    for feature in ("smap", "rdtscp", "avx", "avx2", "xsave"):
        assert f"-{feature}" in TCG_CPU.split(",")
    assert "-erms" in TCG_CPU.split(","), "copying is emulated byte by byte with it"
    assert after(line(kvm=True), "-cpu") == ["host"]


def test_no_kernel_uses_the_instruction_that_emulation_gets_wrong() -> None:
    assert NO_CMPXCHG16B in after(line(), "-initrd")[0].split()
    assert NO_CMPXCHG16B in (ASSETS / "guest" / "guest.cfg").read_text().replace(chr(34), " ").split()


@pytest.mark.parametrize(("debian", "memory"), [(12, "768M"), (13, "900M")])
def test_dom0_memory_is_fixed(debian: int, memory: str) -> None:
    assert f"dom0_mem={memory},max:{memory}" in after(line(debian=debian), "-append")[0]


def test_only_xen_hosts_have_more_processors_and_dom0_has_one() -> None:
    xen, witness = (
        argv(host, Settings(processors=2), FILES, "AAAAkey", (7, 8), kvm=False) for host in (HOSTS[0], WITNESS)
    )
    assert (after(xen, "-smp"), after(witness, "-smp")) == (["2"], ["1"])
    assert "dom0_max_vcpus=1" in after(xen, "-append")[0].split()


def test_hosts_differ_where_they_must() -> None:
    alpha, beta = line(0), line(1)
    assert after(alpha, "-netdev")[0].endswith("hostfwd=tcp:127.0.0.1:2211-:22")
    assert after(beta, "-netdev")[0].endswith("hostfwd=tcp:127.0.0.1:2212-:22")
    macs = [word.split("mac=")[1] for words in (alpha, beta) for word in after(words, "-device") if "mac=" in word]
    assert len(set(macs)) == 6


def test_disks_say_who_they_are() -> None:
    assert [after(line(host), "-global") for host in (0, 1)] == [
        ["virtio-blk-device.serial=lab-alpha"],
        ["virtio-blk-device.serial=lab-beta"],
    ]


def test_taps_are_handed_over_by_descriptor() -> None:
    assert [word for word in after(line(), "-netdev") if word.startswith("tap")] == [
        "tap,id=nic1,fd=7,vhost=off",
        "tap,id=nic2,fd=8,vhost=off",
    ]


def test_identity_is_on_the_kernel_command_line_and_commas_are_doubled() -> None:
    kernel, initrd = after(line(), "-initrd")[0].rsplit(",", 1)
    assert "remus_lab.name=alpha remus_lab.number=11 remus_lab.key=AAAAkey" in kernel
    assert initrd == "/i/initrd.img"
    drive = after(line(), "-drive")[0]
    assert drive.startswith("file=/s,,x/alpha/disk.qcow2,if=virtio")
    assert marker(FILES.disk) in drive


def test_the_witness_boots_the_same_image_without_xen() -> None:
    words = argv(WITNESS, Settings(memory_mib=4096), FILES, "AAAAkey", (7, 8), kvm=False)
    assert after(words, "-kernel") == ["/i/vmlinuz"]
    assert after(words, "-initrd") == ["/i/initrd.img"]
    assert "/i/xen" not in words
    kernel = after(words, "-append")[0].split()
    assert {"console=ttyS0,115200", "root=/dev/vda", NO_CMPXCHG16B, "remus_lab.name=gamma"} <= set(kernel)
    # Nothing of what dom0 waits for: Xen's daemons, and a login on a terminal that udev does not bring up here.
    assert {"systemd.mask=xen.service", "systemd.mask=serial-getty@ttyS0.service"} <= set(kernel)
    assert after(words, "-m") == [str(WITNESS_MIB)]
    assert len(after(words, "-drive")) == 1
    assert len([word for word in after(words, "-device") if word.startswith("virtio-net-pci")]) == 3
    assert after(words, "-netdev")[0].endswith("hostfwd=tcp:127.0.0.1:2213-:22")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu vmx sse", True),
        ("flags\t\t: fpu svm", True),
        ("flags\t\t: fpu svm_lock", False),
        ("model name : vmx 3000\nflags : fpu", False),
    ],
)
def test_hardware_virtualisation_must_be_announced(text: str, expected: bool) -> None:
    assert announced(text) is expected
