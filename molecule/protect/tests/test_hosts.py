"""After site.yml: what the roles xen_host, remus_storage and remus_network promise of each host, now and after a boot."""

import json

import pytest
from pair.hosts import ADDRESSES, GUEST

pytestmark = pytest.mark.timeout(3600)

OUTPUT_BUFFER = ("ifb", "sch_plug", "sch_ingress", "act_mirred", "cls_matchall")
BELOW_DISKS = ("dm-raid", "raid1", "nbd")
NBD_DEVICES = 64
DISK = f"remus-{GUEST}-xvda"


def name_of(host):
    """The lab's name of a testinfra host."""
    return host.check_output("hostname --short")


def assignments(host, path):
    """name=value lines of a file, without quotes; the last one of a name counts."""
    lines = (line.partition("=") for line in host.file(path).content_string.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, equals, value in lines if equals}


def loaded(host):
    """Modules of the running kernel, built in or loaded."""
    return set(host.check_output("ls /sys/module").split())


@pytest.mark.parametrize(
    ("file", "modules"), [("remus.conf", OUTPUT_BUFFER), ("remus-storage.conf", BELOW_DISKS)], ids=["output", "disks"]
)
def test_modules_are_loaded_now_and_after_a_boot(host, file, modules):
    assert {name.replace("-", "_") for name in modules} <= loaded(host)
    lines = host.file(f"/etc/modules-load.d/{file}").content_string.splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == list(modules)


def test_dom0_gives_no_memory_away(host):
    assert assignments(host, "/etc/xen/xl.conf")["autoballoon"] == "off"


def test_no_stale_copy_of_a_guest_comes_back_after_a_boot(host):
    found = assignments(host, "/etc/default/xendomains")
    assert (found["XENDOMAINS_SAVE"], found["XENDOMAINS_RESTORE"]) == ("", "")


def test_there_are_nbd_devices_for_every_disk(host):
    assert f"nbds_max={NBD_DEVICES} max_part=0" in host.file("/etc/modprobe.d/remus-storage.conf").content_string
    assert len(host.check_output("ls -d /sys/block/nbd*").split()) >= NBD_DEVICES
    assert host.file("/sys/module/nbd/parameters/max_part").content_string == "0\n", "it looks for partitions on taps"


def test_the_list_of_disks_is_closed_to_others_and_accepted(host):
    file = host.file("/etc/remus/disks.toml")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o640)
    assert host.run("remus-disks check").rc == 0


def test_the_mapper_device_leads_where_it_should(host):
    said = json.loads(host.check_output("remus-disks status --json"))
    (disk,) = said["disks"]
    assert (disk["name"], disk["right"]) == (DISK, True), disk
    assert disk["mapped"] == disk["size"] > 0, disk
    assert said["strays"] == []


def test_mapper_devices_are_made_before_guests_start(host):
    assert host.service("remus-disks").is_enabled
    before = host.check_output("systemctl show -P Before remus-disks.service").split()
    assert {"xendomains.service", "remus-agent.service"} <= set(before)


def test_a_host_that_is_shut_down_stops_its_agent_before_its_guests(host):
    after = host.check_output("systemctl show -P After remus-agent.service").split()
    assert "xendomains.service" in after


def test_the_replication_address_is_there(host):
    found = json.loads(host.check_output(f"ip -json address show to {ADDRESSES[name_of(host)]}"))
    assert [entry["operstate"] for entry in found if entry.get("ifname")] == ["UP"]


def test_the_agent_has_read_its_configuration(host):
    """What is in effect is what the files say."""
    read = json.loads(host.check_output("remusctl -o json agent"))["configuration"]
    assert set(read) == {"/etc/remus/agent.toml", "/etc/remus/disks.toml"}
    assert read == {path: host.file(path).sha256sum for path in read}


def test_the_releases_links_lead_to_one_that_is_whole(host):
    assert host.file("/opt/remus/current").is_symlink
    assert host.file("/opt/remus/current/.complete").exists
    for command in ("remusctl", "remus-disks"):
        assert host.file(f"/usr/local/sbin/{command}").linked_to.endswith(f"/bin/{command}")
