"""Whether hardware virtualisation really works here.

``/dev/kvm`` alone proves nothing: some clouds offer a paravirtual one in which Xen cannot boot. So the CPU
must announce vmx or svm, and Xen must have come up under KVM once.
"""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from lab import console
from lab.progress import Progress
from lab.qemu import BootFiles, acceleration, boot_options

PASSED = re.compile(r"\(XEN\).*(relinquishing VGA|Serial input to DOM0|Std\. Loglevel)")
TRIAL_SECONDS = 40


def announced(cpuinfo: str) -> bool:
    """Whether the flags in CPUINFO contain vmx or svm."""
    return re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpuinfo, re.MULTILINE) is not None


def usable(files: BootFiles, debian: int, say: Progress) -> bool:
    """Whether hosts may run under KVM on this machine."""
    if not announced(Path("/proc/cpuinfo").read_text()) or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        say("no hardware virtualisation here: emulating")
        return False
    say("hardware virtualisation is announced: trial boot of Xen")
    passed = trial(files, debian)
    say("trial boot passed: using KVM" if passed else "trial boot failed: emulating")
    return passed


def trial(files: BootFiles, debian: int) -> bool:
    """Boot Xen under KVM without a disk, until it hands over to dom0."""
    with tempfile.TemporaryDirectory(prefix="remus-lab-") as folder:
        log = Path(folder) / "console.log"
        words = ["qemu-system-x86_64", "-machine", "q35", "-m", "2048", *acceleration(kvm=True)]
        words += ["-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{log}"]
        words += boot_options(files, debian)
        qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + TRIAL_SECONDS
        try:
            while time.monotonic() < deadline and qemu.poll() is None:
                if PASSED.search(console.tail(log, 400)):
                    return True
                time.sleep(0.5)
            return False
        finally:
            qemu.kill()
            qemu.wait()
