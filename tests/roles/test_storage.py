"""What the role remus_storage renders is what the agent accepts, and its disks are those of the inventory's guests."""

from __future__ import annotations

import configparser
import json
import re
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from remus_agent import disk_config
from tests.modules.conftest import ROOT
from tests.roles.local_play import ansible_playbook

ROLE = ROOT / "roles/remus_storage"
STATE, RUN = Path("/var/lib/remus"), Path("/run/remus")


def render(disks: list[dict[str, Any]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"), undefined=jinja2.ChainableUndefined, keep_trailing_newline=True,
        trim_blocks=True, autoescape=False,  # noqa: S701  TOML, not HTML
    )  # fmt: skip
    environment.filters["to_json"] = json.dumps
    return environment.get_template("disks.toml.j2").render(remus_storage_disks=disks)


def test_the_agent_accepts_its_list() -> None:
    full = {
        "domain": "db1", "vdev": "xvda", "device": "/dev/vg0/db1", "metadata": "/dev/vg0/db1-md", "journal": "/dev/vg0/db1-jn",
        "journal_bytes": 268435456,
    }  # fmt: skip
    short = {"domain": "web1", "vdev": "xvda", "device": "/dev/vg0/web1"}
    nulls = {**short, "vdev": "xvdb", "device": "/dev/vg0/web1-b", "metadata": None, "journal_bytes": None}
    found = disk_config.parse(render([full, short, nulls]), STATE, RUN)
    assert [disk.name for disk in found] == ["remus-db1-xvda", "remus-web1-xvda", "remus-web1-xvdb"]
    assert (str(found[0].journal), found[0].journal_bytes) == ("/dev/vg0/db1-jn", 268435456)
    assert found[2].journal_bytes == disk_config.JOURNAL_BYTES
    assert disk_config.parse(render([]), STATE, RUN) == ()


def test_the_release_has_what_the_role_runs() -> None:
    scripts = (ROOT / "pyproject.toml").read_text()
    assert 'remus-disks = "remus_agent.disks:main"' in scripts
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "remus_agent/units/remus-disks.service")
    assert unit["Service"]["ExecStart"].startswith("/opt/remus/current/bin/remus-disks up ")
    assert "ExecStop" not in unit["Service"]
    assert {"xendomains.service", "remus-agent.service"} <= set(unit["Unit"]["Before"].split())
    agent = (ROOT / "remus_agent/units/remus-agent.service").read_text()
    assert agent.count("remus-disks.service") == 2
    links = yaml.safe_load((ROOT / "roles/remus_agent/vars/main.yml").read_text())["__remus_agent_links"]
    assert links["/usr/local/sbin/remus-disks"] == "remus-disks", "as messages have it"


def test_disks_come_before_the_agent_starts() -> None:
    (site,) = (
        play for play in yaml.safe_load((ROOT / "playbooks/site.yml").read_text()) if "the disks" in play["name"]
    )
    roles = [task["ansible.builtin.import_role"] for task in site["tasks"]]
    assert [(role["name"], role.get("tasks_from")) for role in roles] == [
        ("xen_host", None),
        ("remus_agent", "release"),
        ("remus_storage", None),
        ("remus_pki", None),
        ("remus_agent", None),
    ]


@pytest.mark.playbooks
def test_each_host_looks_at_the_disks_of_its_guests(tmp_path: Path) -> None:
    guests = [
        {"name": "web1", "hosts": ["xen1", "xen3"], "disks": [{"vdev": "xvda", "device": "/dev/none/web1"}]},
        {
            "name": "db1",
            "hosts": ["xen1", "xen2"],
            "disks": [
                {"vdev": "xvda", "device": "/dev/none/db1", "per_host": {"xen2": {"device": "/dev/other/db1"}}},
                {"vdev": "xvdb", "device": "/dev/none/db1", "journal_bytes": 8388608},
            ],
        },
        {"name": "plain", "hosts": ["xen1", "xen2"]},
        {
            "name": "shop",
            "hosts": ["xen2", "xen3"],
            "members": [
                {"name": "app2"},
                {"name": "db2", "disks": [{"vdev": "xvda", "device": "/dev/none/db2"}]},
            ],
        },
    ]
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {
        "remus_hosts": {
            "vars": {"remus_guests": guests, "remus_storage_kernel_modules": []},
            "hosts": {"xen1": local, "xen2": local, "xen3": local | {"remus_guests": []}},
        }
    }
    role = {"name": "remus_storage", "tasks_from": "preflight.yml"}
    book = [{"hosts": "remus_hosts", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}]}]
    (tmp_path / "book.yml").write_text(yaml.safe_dump(book))
    _, text = ansible_playbook(
        tmp_path, inventory, tmp_path / "book.yml", "--check", ANSIBLE_CALLBACK_RESULT_FORMAT="json"
    )
    said = re.findall(r'fatal: \[(\w+)\]: FAILED! => .*"msg": "The disks of (.*?)"\}', text)
    reasons = {host: re.findall(r"\\n\d+\. (.*?)\. Next", text) for host, text in said}
    assert reasons == {
        "xen1": [
            "device of remus-web1-xvda, /dev/none/web1, does not exist",
            "device of remus-db1-xvda, /dev/none/db1, does not exist",
            "device of remus-db1-xvdb, /dev/none/db1, does not exist",
            "device of remus-db1-xvdb, /dev/none/db1, is also device of remus-db1-xvda",
        ],
        "xen2": [
            "device of remus-db1-xvda, /dev/other/db1, does not exist",
            "device of remus-db1-xvdb, /dev/none/db1, does not exist",
            "device of remus-db2-xvda, /dev/none/db2, does not exist",
        ],
    }, text
