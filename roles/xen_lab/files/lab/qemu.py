"""The command line of a host's QEMU (pure)."""

from dataclasses import dataclass
from pathlib import Path

from lab.spec import DOM0_MIB, HostSpec, Settings

# What emulation gets wrong under Xen is switched off: smap kills dom0 at its first iret, rdtscp makes PVH
# guests loop, and AVX state is not kept apart between domains. With erms, kernels and Xen copy and clear by `rep movsb` and
# `rep stosb`, which are emulated byte by byte: 1 MiB through a Unix socket took dom0 28.7 ms, and takes 3.1 without it.
TCG_CPU = "max,-smap,-rdtscp,-avx,-avx2,-f16c,-fma,-xsave,-xsaveopt,-xsavec,-xsaves,-pku,-la57,-erms"
LAB_XEN_ARGUMENTS = "com1=115200,8n1 console=com1 spec-ctrl=no loglvl=warning guest_loglvl=warning"
XEN_ARGUMENTS = f"{LAB_XEN_ARGUMENTS} dom0_max_vcpus=1"
# cmpxchg16b is emulated wrongly, and Linux's allocator lives on it; see docs/adr/0003.
NO_CMPXCHG16B = "clearcpuid=cx16"
LAB_ARGUMENTS = (
    "net.ifnames=0 fsck.mode=skip mitigations=off audit=0 loglevel=4 "
    f"random.trust_cpu=on systemd.show_status=1 {NO_CMPXCHG16B}"
)
"""What every Linux on a lab host is told, with Xen or without."""
KERNEL_ARGUMENTS = f"root=/dev/vda rw {LAB_ARGUMENTS}"
IDENTITY_FILE = "opt/remus-lab/identity"
"""Name by which a bare host finds who it is (QEMU's fw_cfg)."""
DOM0_ARGUMENTS = f"console=hvc0 {KERNEL_ARGUMENTS}"
# The image's udev coldplugs no terminals, so a login on the serial line would hold the boot up until it times out.
PLAIN_ARGUMENTS = (
    f"console=ttyS0,115200 {KERNEL_ARGUMENTS} systemd.mask=serial-getty@ttyS0.service systemd.mask=xen.service"
)


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a host boots from: the files of an image, and its own disk. volume: its device for the guest's disk.

    Without Xen the files xen, guest_disk and volume are not used; by a bare host xen, kernel and initrd are not."""

    xen: Path
    kernel: Path
    initrd: Path
    disk: Path
    guest_disk: Path
    volume: Path
    console: Path


def marker(disk: Path) -> str:
    """Word of the command line that only this host's QEMU has."""
    return f"file={escape(str(disk))},"


def escape(value: str) -> str:
    """VALUE for a QEMU option list, in which a comma is written twice."""
    return value.replace(",", ",,")


def acceleration(kvm: bool) -> list[str]:
    """Options for the accelerator and the CPU model."""
    if kvm:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", TCG_CPU]


def boot_options(files: BootFiles, debian: int, extra: str = "") -> list[str]:
    """Options that boot Xen with its dom0 kernel and initrd as multiboot modules, without a boot loader."""
    memory = DOM0_MIB[debian]
    kernel = escape(f"{files.kernel} {DOM0_ARGUMENTS} {extra}".rstrip())
    return [
        "-kernel",
        str(files.xen),
        "-initrd",
        f"{kernel},{escape(str(files.initrd))}",
        "-append",
        f"{XEN_ARGUMENTS} dom0_mem={memory}M,max:{memory}M",
    ]


def plain_boot_options(files: BootFiles, extra: str = "") -> list[str]:
    """Options that boot the image's Linux without Xen, from the same initrd."""
    words = ["-kernel", str(files.kernel), "-initrd", str(files.initrd)]
    return [*words, "-append", f"{PLAIN_ARGUMENTS} {extra}".rstrip()]


def bare_boot_options(identity: str) -> list[str]:
    """Options for a host that boots from its own disk, whose image reads IDENTITY (name, number, key) at the first boot."""
    return ["-fw_cfg", f"name={IDENTITY_FILE},string={escape(identity)}"]


def argv(
    host: HostSpec,
    settings: Settings,
    files: BootFiles,
    public_key: str,
    taps: tuple[int, int],
    *,
    kvm: bool,
) -> list[str]:
    """Whole command line for HOST. TAPS are the descriptors for the guests' and the replication network."""
    words = ["qemu-system-x86_64", "-name", f"{settings.namespace}-{host.name}", "-machine", "q35"]
    words += [*acceleration(kvm), "-smp", str(settings.processors if host.xen else 1), "-m", str(settings.memory(host))]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"]
    words += ["-serial", f"file:{escape(str(files.console))}"]
    if settings.bare(host):
        words += bare_boot_options(f"{host.name} {host.number} {public_key}")
    else:
        identity = f"remus_lab.name={host.name} remus_lab.number={host.number} remus_lab.key={public_key}"
        words += boot_options(files, settings.debian, identity) if host.xen else plain_boot_options(files, identity)
    words += ["-drive", f"{marker(files.disk)}if=virtio,format=qcow2,cache=unsafe,discard=unmap"]
    if host.xen:
        words += ["-drive", f"file={escape(str(files.guest_disk))},if=virtio,format=raw,readonly=on"]
        words += ["-drive", f"file={escape(str(files.volume))},if=virtio,format=qcow2,cache=unsafe,discard=unmap"]
        # By it an agent knows its disk again after a power cut; one that says nothing of itself is compared as a whole.
        words += ["-global", f"virtio-blk-device.serial=lab-{host.name}"]
    forward = f"hostfwd=tcp:127.0.0.1:{settings.ssh_port(host)}-:22"
    words += ["-netdev", f"user,id=nic0,ipv6=off,{forward}"]
    for nic, fd in enumerate(taps, start=1):
        words += ["-netdev", f"tap,id=nic{nic},fd={fd},vhost=off"]
    for nic in range(3):
        words += ["-device", f"virtio-net-pci,netdev=nic{nic},mac={host.mac(nic)},romfile="]
    words += ["-device", "virtio-rng-pci"]
    return words
