"""Every block of the documents is something that is checked, or says what else it is.

Commands are of programs whose words `test_commands.py` looks at, or of Debian's and Xen's own, which are run by hand;
configuration is read by what reads it on a host; what is shown is named here.
"""

from __future__ import annotations

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.remus.inventory_guests import guest_reasons

from remus_agent import config
from remus_agent.adapters.witness import record
from remus_agent.adapters.witness.etcd import PREFIX
from remus_agent.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/adr/*.md"), *ROOT.glob("roles/*/README.md")]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LOOKED_AT = {"ansible-playbook", "make", "molecule", "python", "remus-disks", "remusctl"}
"""What test_commands.py follows, word by word."""
BY_HAND = {"apt-get", "chroot", "cp", "debootstrap", "echo", "etcdctl", "export", "ipmitool", "lvcreate", "mkdir", "mkfs.ext4",
           "mount", "printf", "qemu-system-x86_64", "ssh", "umount", "vgcreate", "xl"}  # fmt: skip
"""Debian's and Xen's own. docs/development.md says so."""
SHOWN = {
    "docs/architecture.md": ["        controller "],
    "docs/operations.md": [
        "rate(remus_shared_cpu_seconds_total[5m])",  # test_prometheus_scrape.py asks a Prometheus this one
        "disk = ['/dev/vg0/db1-xvda,raw,xvda,w']",
        "remusctl: read redis1.remus, epoch 4: wrong length",
    ],
    "docs/protocol.md": ["xl header + JSON configuration"],
    "docs/remusctl.md": ["remusctl watch alpha  2 guests"],
}
"""By how it begins: no commands, but what is drawn, said or asked."""


def blocks(language: str) -> list[Any]:
    """(document, text) of the blocks of a language, without what they are indented by."""
    found = []
    for path in sorted(DOCUMENTS):
        name = str(path.relative_to(ROOT))
        for indent, of, text in BLOCK.findall(path.read_text()):
            if of == language:
                plain = re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
                found.append(pytest.param(name, plain, id=f"{name}: {plain.splitlines()[0][:40]}"))
    return found


def programs(text: str) -> list[str]:
    """What begins each command of a block: all of it, or what stands behind a prompt."""
    lines = text.replace("\\\n", " ").splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line.split()[0] for line in prompted or lines if line.strip()]


def test_the_languages_are_known() -> None:
    found = {language for path in DOCUMENTS for _, language, _ in BLOCK.findall(path.read_text())}
    assert found == {"", "mermaid", "python", "toml", "yaml"}, (
        "mermaid: docs/protocol.md, which a test of the tables compares"
    )


@pytest.mark.parametrize(("name", "text"), blocks(""))
def test_a_block_without_a_language(name: str, text: str) -> None:
    if not any(text.startswith(beginning) for beginning in SHOWN.get(name, [])):
        assert [program for program in programs(text) if program not in LOOKED_AT | BY_HAND] == []


def test_what_is_shown_is_there() -> None:
    for name, beginnings in SHOWN.items():
        texts = [block.values[1] for block in blocks("") if block.values[0] == name]
        for beginning in beginnings:
            assert any(text.startswith(beginning) for text in texts), (name, beginning)


def sections(text: str) -> dict[str, str]:
    """{header: lines}, of TOML that has nothing before its first header."""
    return dict(re.findall(r"^(\[[^\n]*\])[^\n]*\n(.*?)(?=^\[|\Z)", text, re.M | re.DOTALL))


def joined(parts: dict[str, str]) -> str:
    return "\n".join(f"{header}\n{body}" for header, body in parts.items())


def test_the_agent_takes_the_configuration_of_every_block() -> None:
    """The first by itself, as it says; each of the others with what stands before it in the document."""
    texts = [block.values[1] for block in blocks("toml")]
    assert len(texts) == 6
    config.parse(texts[0])
    known: dict[str, str] = {}
    for text in texts:
        known |= sections(text)
        assert set(tomllib.loads(joined(sections(text)))) == set(tomllib.loads(text)), "nothing is lost"
    found = config.parse(joined(known))
    assert found.tls and found.witness and found.http and found.watchdog.seconds and set(found.fencing) == {"xen2"}


def test_a_wrong_key_is_found() -> None:
    with pytest.raises(ConfigError):
        config.parse(joined(sections('[host]\nname = "a"\n[replication]\nlisten = "192.0.2.1:7789"\nsecnd = "x"\n')))


@cache
def options() -> dict[str, dict[str, Any]]:
    """Every variable that a role takes."""
    return {
        name: option
        for path in ROOT.glob("roles/*/meta/argument_specs.yml")
        for spec in yaml.safe_load(path.read_text())["argument_specs"].values()
        for name, option in spec.get("options", {}).items()
    }


def against(variables: dict[str, Any]) -> list[str]:
    """What stands against them: of variables of roles as Ansible would say it, of guests as preflight.yml does."""
    guests = variables.pop("remus_guests", [])
    wrong = guest_reasons(guests, "", {host: {} for guest in guests for host in guest["hosts"]})
    unknown = [f"no role takes {name}" for name in variables if name not in options()]
    spec = {name: options()[name] for name in variables if name in options()}
    known = {name: value for name, value in variables.items() if name in spec}
    return [*wrong, *unknown, *ArgumentSpecValidator(spec).validate(known).error_messages]


@pytest.mark.parametrize(("name", "text"), blocks("yaml"))
def test_variables_of_a_block(name: str, text: str) -> None:
    found = yaml.safe_load(text)
    if name == "roles/remus_monitoring/README.md":
        assert set(found) == {"rule_files", "scrape_config_files"}, "Prometheus's own"
    else:
        assert against(found) == []


def test_wrong_variables_are_found() -> None:
    assert against({"xen_host_reboot": "perhaps"}) != []
    assert against({"remus_guests": [{"name": "a", "hosts": ["b"]}]}) != []
    assert against({"xen_host_reboots": True}) == ["no role takes xen_host_reboots"]


def test_the_record_that_is_written_by_hand_is_one() -> None:
    (text,) = re.findall(r"`etcdctl put (\S+) '(\{.*?\})'`", (ROOT / "docs/runbook.md").read_text())
    key, value = text
    assert key == f"{PREFIX}UUID"
    found = record.decode(value.replace(":N,", ":7,").encode())
    assert (found.owner, found.generation) == ("THIS_HOST", 7)
    assert json.loads(record.encode(found)).keys() == json.loads(value.replace(":N,", ":7,")).keys()
