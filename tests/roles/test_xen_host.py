"""The role xen_host on this machine with made-up facts: what it refuses, what it would write, and when it would reboot."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.modules.conftest import ROOT
from tests.roles.local_play import ansible_playbook, run_play

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(900)]

SETTINGS = {"autoballoon": None, "XENDOMAINS_SAVE": None, "XENDOMAINS_RESTORE": None, "modules_load": []}
BARE = {
    "distribution": "debian",
    "distribution_version": "13",
    "architecture": "x86_64",
    "kernel": "6.12.0-amd64",
    "python_version": "3.13.5",
    "control_domain": False,
    "xen_guest": False,
    "xen_version": None,
    "xen_release": None,
    "virt_caps": [],
    "toolstack_error": None,
    "missing_packages": ["xen-system-amd64", "xen-utils-common"],
    "loaded_modules": [],
    "unavailable_modules": [],
    "settings": SETTINGS,
    "boot": {"grub": True, "outdated": False, "entry": "Debian GNU/Linux", "xen": False},
    "other_guests": [],
}
"""What xen_host_info says of plain Debian."""
INSTALLED = {**BARE, "missing_packages": []}
DOM0 = {
    **INSTALLED,
    "control_domain": True,
    "xen_version": "4.20",
    "xen_release": "4.20.1",
    "virt_caps": ["pvh", "hap"],
}
KVM = ["qemu-system-x86 (4711)"]


def host(facts: dict[str, Any], **variables: Any) -> dict[str, Any]:
    return {"xen_host_live": facts, **variables}


def said_by(folder: Path, hosts: dict[str, dict[str, Any]], entry: str, *options: str) -> tuple[dict[str, str], str]:
    """What an entry of the role refused on each host, "" where nothing; and all that was printed."""
    answers = folder / "answers"
    answers.mkdir()
    role = {"include_role": {"name": "xen_host", "tasks_from": f"{entry}.yml", "public": True}}
    remember = {
        "copy": {"dest": f"{answers}/{{{{ inventory_hostname }}}}", "content": "{{ ansible_failed_result.msg }}"},
        "check_mode": False,
        "diff": False,
    }
    code, text = run_play(folder, {"hosts": hosts}, {"tasks": [{"block": [role], "rescue": [remember]}]}, *options)
    assert code == 0, text
    return {name: (answers / name).read_text() if (answers / name).exists() else "" for name in hosts}, text


PREFLIGHT: dict[str, tuple[dict[str, Any], str]] = {
    "fresh": (host(BARE), ""),
    "running": (host(DOM0), ""),
    "running-with-everything": (host(DOM0, xen_host_reboot=True, xen_host_boot_xen=True), ""),
    "installed-only": (host(INSTALLED), "'with Xen hypervisor', or set xen_host_reboot to true"),
    "interrupted-before-the-boot-loader": (host(INSTALLED, xen_host_dom0_memory_mib=512), ""),
    "interrupted-before-its-menu": (host({**INSTALLED, "boot": {**BARE["boot"], "outdated": True}}, xen_host_boot_xen=True), ""),
    "may-be-rebooted": (host(INSTALLED, xen_host_reboot=True), ""),
    "guests-of-another": (host({**BARE, "other_guests": KVM}, xen_host_reboot=True), "KVM run there: qemu-system-x86 (4711)"),
    "nothing-is-installed": (host(BARE, xen_host_install=False), "packages are missing: xen-system-amd64, xen-utils-common"),
    "a-guest-itself": (host({**BARE, "xen_guest": True}, xen_host_reboot=True), "this machine is itself a guest of Xen"),
    "no-grub": (host({**BARE, "boot": {**BARE["boot"], "grub": False}}, xen_host_dom0_vcpus=2), "there is no update-grub"),
    "no-grub-wanted": (host({**BARE, "boot": {**BARE["boot"], "grub": False}}), ""),
    "no-bridge": (host(BARE, xen_host_bridge="xenbr0", xen_host_bridge_port="nosuch0"), "the bridge xenbr0 cannot be made: "),
    "no-port": (host(BARE, xen_host_bridge="xenbr0"), "'' is not the name of an interface"),
}  # fmt: skip


def test_preflight_refuses_with_the_next_step_and_only_then(tmp_path: Path) -> None:
    said, text = said_by(tmp_path, {name: facts for name, (facts, _) in PREFLIGHT.items()}, "preflight")
    for name, (_, words) in PREFLIGHT.items():
        assert words in said[name], name
        assert bool(words) == bool(said[name]), f"{name}: {said[name]}"
        assert bool(words) == ("nothing was changed" in said[name])
        assert bool(words) == ("Next: " in said[name])
    assert re.findall(r"changed=(\d+)", text) == ["1" if words else "0" for _, words in sorted(
        (name, words) for name, (_, words) in PREFLIGHT.items())], "only what this test remembers"  # fmt: skip


def test_verify_accepts_nothing_but_a_running_xen(tmp_path: Path) -> None:
    rebooted = {"rebooted": True}
    hosts = {
        "dom0": host({**DOM0, "loaded_modules": ["ifb", "sch_plug", "sch_ingress", "act_mirred", "cls_matchall"]}),
        "not-rebooted": host(INSTALLED),
        "in-vain": host(INSTALLED, xen_host_reboot=True, __xen_host_rebooted=rebooted),
    }
    said, _ = said_by(tmp_path, hosts, "verify")
    assert said["dom0"] == ""
    assert "is installed but cannot protect guests yet" in said["not-rebooted"]
    assert "or set xen_host_reboot to true" in said["not-rebooted"]
    assert "the host has been rebooted and did not boot into Xen" in said["in-vain"]


def test_a_host_whose_boot_loader_would_not_start_xen_is_not_rebooted(tmp_path: Path) -> None:
    """It reads this machine again, which has no GRUB that starts Xen, and could not be rebooted over this connection anyway."""
    said, text = said_by(tmp_path, {"here": host(INSTALLED, xen_host_reboot=True)}, "reboot")
    assert "is prepared for Xen and was not rebooted" in said["here"]
    assert "which is not Xen. Next: set" in said["here"]
    assert "TASK [xen_host : reboot | Boot into Xen]" not in text


def test_check_mode_says_that_it_would_reboot(tmp_path: Path) -> None:
    """Over a connection that is never made: of the controller itself the action would not even say it."""
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    said, text = said_by(tmp_path, {"here": host(BARE, xen_host_reboot=True, **nowhere)}, "reboot", "--check")
    assert said["here"] == ""
    assert re.search(r"reboot \| Boot into Xen\] \*+\nchanged: \[here\]", text), text


def test_check_mode_shows_what_the_boot_loader_would_be_told(tmp_path: Path) -> None:
    hosts = {
        "everything": host(BARE, xen_host_dom0_memory_mib=2048, xen_host_dom0_vcpus=2, xen_host_boot_xen=True),
        "memory": host(BARE, xen_host_dom0_memory_mib=512),
        "nothing": host(BARE),
    }
    said, text = said_by(tmp_path, hosts, "boot", "--check", "--diff")
    assert set(said.values()) == {""}
    assert '+GRUB_CMDLINE_XEN_DEFAULT="$GRUB_CMDLINE_XEN_DEFAULT dom0_mem=2048M,max:2048M dom0_max_vcpus=2"\n' in text
    assert '+GRUB_CMDLINE_XEN_DEFAULT="$GRUB_CMDLINE_XEN_DEFAULT dom0_mem=512M,max:512M"\n' in text
    assert text.count("+XEN_OVERRIDE_GRUB_DEFAULT=1") == 1
    assert "skipping: [nothing]" in text
    assert not re.search(r"changed: \[nothing\]", text)


def test_a_menu_that_does_not_start_xen_is_not_written_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something speaks against it after this role's settings. The menu is this machine's: none, or one without Xen."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "update-grub").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "update-grub").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    hosts = {"asked": host(DOM0, xen_host_boot_xen=True), "memory": host(DOM0, xen_host_dom0_memory_mib=512)}
    said, text = said_by(
        tmp_path, hosts, "boot", "-e", f"__xen_host_grub_settings={tmp_path}/{{{{ inventory_hostname }}}}.cfg"
    )
    assert said["memory"] == ""
    assert "asked is prepared for Xen, but GRUB would start '" in said["asked"]
    assert "look for GRUB_DEFAULT and XEN_OVERRIDE_GRUB_DEFAULT" in said["asked"]
    written = text.split("Write the boot loader's menu, for the next boot]")[1].split("TASK [")[0]
    assert "changed: [asked]" in written, text


STAND_IN = """\
import pathlib
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={name: {"type": "str"} for name in ("bridge", "port", "state", "seconds", "token")})
pathlib.Path(module.params["port"]).touch()
module.exit_json(changed=False, up=True, token="word")
"""


def test_a_host_that_is_gone_on_its_way_to_the_bridge_is_told_with_what_is_left(tmp_path: Path) -> None:
    """It says that the bridge is up, and then nobody reaches it. The module is a stand-in, which notes that in a file."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "xen_host_bridge.py").write_text(STAND_IN)
    gone = tmp_path / "gone"
    facts = {
        "ansible_connection": f"{{{{ 'ssh' if '{gone}' is exists else 'local' }}}}",
        "ansible_host": "127.0.0.1",
        "ansible_port": 1,
        "ansible_python_interpreter": sys.executable,
        "xen_host_bridge": "xenbr0",
        "xen_host_bridge_port": str(gone),
        "xen_host_bridge_timeout": 10,
    }
    role = {"include_role": {"name": "xen_host", "tasks_from": "keep_bridge.yml"}}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [role]}]))
    library = f"{tmp_path / 'library'}:{ROOT / 'library'}"
    code, text = ansible_playbook(
        tmp_path, {"all": {"hosts": {"alpha": facts}}}, tmp_path / "play.yml", ANSIBLE_LIBRARY=library
    )
    said = " ".join(text.split())
    assert code != 0
    assert "alpha did not say that it keeps the bridge xenbr0: it does not answer any more" in said
    assert "takes the bridge away and has its old network within 10 seconds, unless it keeps the bridge" in said
    assert "Next: 'journalctl -u remus-bridge' there" in said


def test_check_mode_shows_the_toolstacks_settings_before_its_package_is_there(tmp_path: Path) -> None:
    said, text = said_by(tmp_path, {"here": host(BARE)}, "configure", "--check", "--diff")
    assert said["here"] == ""
    for line in ('+autoballoon="off"', '+XENDOMAINS_SAVE=""', '+XENDOMAINS_RESTORE=""', "+sch_plug"):
        assert line in text


def test_nothing_of_it_is_on_by_default() -> None:
    defaults = yaml.safe_load((ROOT / "roles/xen_host/defaults/main.yml").read_text())
    off = {
        name: value
        for name, value in defaults.items()
        if re.search(r"_(dom0_\w+|boot_xen|bridge|bridge_port|reboot)$", name)
    }
    assert off == {
        "xen_host_dom0_memory_mib": 0,
        "xen_host_dom0_vcpus": 0,
        "xen_host_boot_xen": False,
        "xen_host_bridge": "",
        "xen_host_bridge_port": "",
        "xen_host_reboot": False,
    }


def test_only_a_host_without_xen_is_rebooted_at_the_operators_word() -> None:
    tasks = yaml.safe_load((ROOT / "roles/xen_host/tasks/main.yml").read_text())
    reboots = [task for task in tasks if task["ansible.builtin.include_tasks"]["file"] == "reboot.yml"]
    assert [task["when"] for task in reboots] == [["xen_host_reboot", "not __xen_host_facts.control_domain"]]
    others = [path for path in ROOT.glob("roles/**/*.yml") if "ansible.builtin.reboot" in path.read_text()]
    assert others == [ROOT / "roles/xen_host/tasks/reboot.yml"]
