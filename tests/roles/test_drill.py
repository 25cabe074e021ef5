"""drill.yml on a pair that is this machine: what is refused, what is broken and undone, what the report says, what fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from ansible.parsing.splitter import parse_kv

from tests.modules.conftest import ROOT
from tests.roles.drill_pair import World
from tests.roles.local_play import run_playbook, run_plays

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(1800)]

PROBE = """
import socket, sys
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
link.sendall(b"*2\\r\\n$4\\r\\nINCR\\r\\n$1\\r\\np\\r\\n")
sys.exit(not link.recv(10).startswith(b":"))
"""
CONSENT = ("-e", "remus_drill_consent=web1")


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """web1 runs on alpha, beta keeps its copy."""
    made = World(tmp_path_factory.mktemp("d"))
    made.start()
    monkeypatch.setenv("PATH", f"{made.folder}/bin:{os.environ['PATH']}")
    yield made
    made.stop()


def groups(world: World, *, witness: bool) -> dict[str, Any]:
    """Of the inventory. witness: there is one, and a second path."""
    hosts = {
        host: {
            "remus_replication_address": f"203.0.113.{number}",
            "remus_agent_run_dir": str(world.folder / host),
            "ansible_connection": f"{{{{ 'ssh' if '{world.folder}/gone-{host}' is exists else 'local' }}}}",
            "ansible_host": "127.0.0.1",
            "ansible_port": number,
        }
        for number, host in enumerate(("alpha", "beta"), 1)
    }
    if not witness:
        return {"remus_hosts": {"hosts": hosts}}
    for number, host in enumerate(hosts.values(), 1):
        host["remus_second_address"] = f"198.51.100.{number}"
    return {
        "remus_hosts": {"hosts": hosts},
        "remus_witnesses": {"hosts": {"gamma": {"remus_witness_address": "198.51.100.3"}}},
    }


def of_all(world: World, *, witness: bool) -> dict[str, Any]:
    """Variables of all hosts."""
    return {
        "remus_pki_enabled": witness,
        "remus_witness_enabled": False,
        "remus_results_dir": str(world.folder / "results"),
        "remus_guests": [{"name": "web1", "hosts": ["alpha", "beta"]}],
    }


def drill(world: World, *words: str, fails: bool = False, witness: bool = False, **variables: Any) -> str:
    """Run the playbook, with short times; what it printed."""
    said = {
        "remus_domain": "web1",
        "__remus_drill_marks": str(world.folder / "marks"),
        "__remus_drill_configuration": str(world.configuration),
        "remus_drill_target": f"127.0.0.1:{world.port}",
        "remus_drill_client_interval_ms": 20,
        "remus_drill_look_ms": 200,
        "remus_drill_before": 1,
        "remus_drill_seconds": 3,
        "remus_drill_after": 1,
        "remus_drill_timeout": 30,
    }
    code, text = run_playbook(
        world.folder,
        {"children": groups(world, witness=witness)},
        "drill",
        *("-e", json.dumps(said | variables), *words),
        variables=of_all(world, witness=witness),
    )
    assert (code != 0) is fails, text
    return text


def reports(world: World) -> list[Path]:
    """Folders of drills."""
    return sorted((world.folder / "results" / "drills").glob("*"))


def failures(folder: Path) -> str:
    """As junit.xml counts them."""
    suite = ET.parse(folder / "junit.xml").find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    return suite.attrib["failures"]


def test_nothing_is_broken_without_consent(world: World) -> None:
    assert "nobody has agreed to that for web1" in drill(world, fails=True)
    assert world.log() == []
    assert reports(world) == []


def said_by(command: list[str]) -> dict[str, Any]:
    """The variables of a command that has nothing else, as Ansible reads them."""
    assert set(command[::2]) == {"-e"}, command
    return {name: value for words in command[1::2] for name, value in parse_kv(words).items()}


def test_every_command_of_the_documentation(world: World) -> None:
    """The first as it stands there; of the others, in the same run, the role with what each of them says to it."""
    text = (ROOT / "docs/drills.md").read_text()
    lines = re.findall(r"^ansible-playbook -i inventories/site drill.yml (.*)$", text, re.MULTILINE)
    first, *others = (shlex.split(line) for line in lines)
    assert (first, len(others)) == (["-e", "remus_domain=web1", "--check"], 9)
    commands = [said_by(command) for command in others]
    assert {command.pop("remus_domain") for command in commands} == {"web1"}
    assert all(name.startswith("remus_drill_") for command in commands for name in command), "the role's own"
    guest = {"remus_drill_guest": "{{ remus_topology_guests | first }}"}
    drills = [{"include_role": {"name": "remus_drill"}, "vars": guest | command} for command in commands]
    target = {"remus_drill_target": f"127.0.0.1:{world.port}", "__remus_drill_marks": str(world.folder / "marks")}
    target["__remus_drill_configuration"] = str(world.configuration)
    code, text = run_plays(
        world.folder,
        {"children": groups(world, witness=True)},
        [{"import_playbook": str(ROOT / "playbooks/drill.yml")}, {"hosts": "localhost", "tasks": drills}],
        *("-e", json.dumps(target), *first),
        variables=of_all(world, witness=True),
    )
    assert code == 0, text
    plans = re.split(r"(\w+) of web1, for (\d+) s\.", " ".join(text.split()))[1:]
    assert list(zip(plans[::3], plans[1::3], strict=True)) == [
        (command.get("remus_drill_fault", "agent_kill"), command.get("remus_drill_seconds", "20"))
        for command in ({}, *commands)
    ]
    assert "systemctl kill --signal=KILL --kill-whom=main remus-agent.service" in plans[2]
    assert "undone by: systemctl reset-failed remus-agent.service" in plans[2]
    assert all("undone by: " in plan for plan in plans[2::3])
    assert not [line for line in world.log() if " add " in line or "systemctl" in line or "systemd-run" in line]
    assert reports(world) == []


def test_every_reason_at_once(world: World) -> None:
    world.died, world.returns = 0.0, False
    text = " ".join(
        drill(
            world,
            *("-e", "remus_drill_consent=web2"),
            fails=True,
            remus_drill_fault="host_power_loss",
            remus_drill_seconds=601,
            remus_drill_target="nowhere",
        ).split()
    )
    assert "add -e remus_drill_consent=web1" in text, "consent to one is never one to another"
    assert "web1 is not protected (web1: silent" in text
    assert "without a witness nobody takes over by himself" in text
    assert "remus_drill_seconds is 601" in text
    assert "remus_drill_target is 'nowhere'" in text
    assert world.log() == []


def went_well(world: World, text: str) -> dict[str, Any]:
    """An agent was killed, and what the report of that has."""
    (folder,) = reports(world)
    said: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert said["ok"] is True
    (undone,) = said["undone"]
    assert (undone["host"], undone["by_hand"]) == ("alpha", f"sh {world.folder}/marks/undo.sh")
    assert undone["undone"] in ("now", "timer"), "on a busy machine the host's own timer may come first"
    assert f"report: {folder}/report.html" in text.replace("\n", "")
    assert failures(folder) == "0"
    assert "web1 is protected again, and runs on alpha" in (folder / "report.html").read_text()
    log = world.log()
    timers = [number for number, line in enumerate(log) if line.startswith("systemd-run --unit=remus-drill-undo")]
    kills = [number for number, line in enumerate(log) if "kill --signal=KILL" in line]
    assert timers[0] < kills[0], "the end is arranged for before the beginning"
    assert "--on-active=8" in log[timers[0]]
    assert (world.folder / "marks" / "undone").exists()
    assert not (folder / "watching").exists()
    return said


def test_an_agent_is_killed_and_what_came_of_it_is_told(world: World) -> None:
    text = drill(world, *CONSENT, remus_drill_timeout=400)
    (folder,) = reports(world)
    longest = json.loads((folder / "plan.json").read_text())["longest"]
    assert longest == 900 + 1 + 3 + 2 * 400 + 400 + 1, "a host may take to boot what the guest may take to be protected"
    verdicts = {one["name"]: one["verdict"] for one in went_well(world, text)["guarantees"]}
    assert verdicts | {"G3": ""} == {
        "G1": "kept", "G2": "not looked at", "G3": "", "G4": "kept", "G5": "kept", "G6": "not looked at",
    }  # fmt: skip
    assert "G4 kept: " in text
    assert world.keys == {}, "the client's keys are gone"


def test_an_operators_own_probe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Mitogen, whatever the others go through."""
    import ansible_mitogen

    monkeypatch.setenv("ANSIBLE_STRATEGY", "mitogen_linear")
    monkeypatch.setenv("ANSIBLE_STRATEGY_PLUGINS", str(Path(ansible_mitogen.__file__).parent / "plugins/strategy"))
    (world.folder / "probe.py").write_text(PROBE)
    probe = f"{sys.executable} {world.folder}/probe.py {world.port}"
    said = went_well(world, drill(world, *CONSENT, remus_drill_probe=probe, remus_drill_client_interval_ms=200))
    assert said["client"] == f"the command: {probe}"
    assert said["answers"] > 10


def test_a_guarantee_that_is_violated_fails_the_drill(world: World) -> None:
    world.leaks = True
    text = " ".join(drill(world, *CONSENT, fails=True).split())
    assert "web1, agent_kill: violated: G1, G4." in text
    assert "State left: the guest is protected." in text


def test_a_guest_that_is_not_protected_at_the_end_fails_it_and_the_way_there_is_said(world: World) -> None:
    world.returns = False
    text = " ".join(drill(world, *CONSENT, fails=True, remus_drill_timeout=3).split())
    assert "State left: web1 is not protected: alpha says silent, beta says ready" in text
    assert "Next: wait: its agent on alpha goes on trying" in text
    (folder,) = reports(world)
    assert failures(folder) == "1"


def test_a_fault_that_cannot_be_begun_is_undone_and_named(world: World) -> None:
    text = " ".join(drill(world, *CONSENT, fails=True, remus_drill_fault="link_cut").split())
    assert "link_cut could not be begun: no such classifier" in text
    assert "State left: the guest is protected." in text
    assert any(line.startswith("tc qdisc del dev eth7 ingress") for line in world.log())
    assert not (reports(world)[0] / "watching").exists()


def test_a_host_that_does_not_come_back_is_named_and_everything_else_is_done(world: World) -> None:
    (world.folder / "takes-the-host").touch()
    text = " ".join(drill(world, *CONSENT, fails=True, __remus_drill_patience=3, remus_drill_timeout=5).split())
    assert f"Next: undo the fault on alpha: run 'sh {world.folder}/marks/undo.sh' there as root" in text
    (folder,) = reports(world)
    said = json.loads((folder / "report.json").read_text())
    assert (said["ok"], said["undone"][0]["host"]) == (False, "alpha")
    assert said["undone"][0]["error"]
    assert said["phases"].keys() == {"before", "breaking", "broken", "mending", "mended", "end"}
    assert not (folder / "watching").exists()


def test_a_host_that_comes_back_late_is_undone_all_the_same(world: World) -> None:
    """It took longer to boot than anybody waits before it is looked whether the guest is protected."""
    (world.folder / "takes-the-host").touch()

    def come_back() -> None:
        while not any('"mended"' in path.read_text() for path in world.folder.glob("results/drills/*/phases.jsonl")):
            time.sleep(0.05)
        (world.folder / "gone-alpha").unlink()

    threading.Thread(target=come_back, daemon=True).start()
    went_well(world, drill(world, *CONSENT, __remus_drill_patience=3, remus_drill_after=3))


def test_a_host_that_the_other_ones_agent_has_fenced_is_switched_on_again(world: World) -> None:
    """Nobody else would: every guest of it stays down."""
    world.fences()
    (world.folder / "takes-the-host").touch()
    freeze = {"remus_drill_fault": "agent_freeze", "__remus_drill_glance": 1, "witness": True}
    text = " ".join(drill(world, *CONSENT, **freeze).split())
    assert "alpha may be powered off, with every guest that runs there: the agent of beta has it fenced by" in text
    assert "fence on" in world.log()
    (folder,) = reports(world)
    said = json.loads((folder / "report.json").read_text())
    assert said["ok"] is True
    (power,) = said["powers"]
    assert (power["host"], power["by"], power["was_off"]) == ("alpha", "beta", True)
    assert [(one["host"], one["undone"]) for one in said["undone"]] == [("alpha", "boot")]
    assert "alpha was off; beta switched it on" in (folder / "report.html").read_text()


def test_a_host_that_does_not_go_on_again_is_named_with_the_command(world: World) -> None:
    world.fences(works=False)
    world.returns = False
    (world.folder / "takes-the-host").touch()
    short = {"__remus_drill_glance": 1, "__remus_drill_patience": 2, "remus_drill_timeout": 3}
    text = " ".join(drill(world, *CONSENT, fails=True, witness=True, remus_drill_fault="agent_freeze", **short).split())
    command = f"{{ printf '%s\\n' action=on; }} | timeout --signal=KILL 1 {world.folder}/bin/fence_alpha"
    says = "the fence agent's status says off after 2 s"
    assert f"power alpha on ({says}) with this on beta as root: {command}; " in text
    assert "unless alpha had to boot, undo the fault on alpha" in text


def test_a_host_that_answers_is_not_asked_after_of_one_that_does_not(world: World) -> None:
    """After a cut both may have been fenced. One that is off itself cannot tell of the other, which is on."""
    world.fences(works=False)
    (world.folder / "gone-alpha").touch()
    fenced = [{"host": "alpha", "by": "beta", "fence": "alpha"}, {"host": "beta", "by": "alpha", "fence": "beta"}]
    known = [{"__remus_drill_asked": host, "by_hand": "", "agent": ""} for host in ("alpha", "beta")]
    facts = {
        "__remus_drill_plan": {"fenced": fenced},
        "__remus_drill_known": {"results": known},
        "__remus_drill_configuration": str(world.configuration),
        "__remus_drill_patience": 1,
    }
    role = {"include_role": {"name": "remus_drill", "tasks_from": "power.yml"}}
    said = {"debug": {"msg": "{{ __remus_drill_powers | map(attribute='host') | join('+') }} asked after"}}
    for left, asked in (["alpha"], "alpha"), (["alpha", "beta"], "alpha+beta"):
        facts["__remus_drill_left"] = [{"host": host} for host in left]
        play = {"hosts": "localhost", "tasks": [role, said]}
        code, text = run_plays(world.folder, {"children": groups(world, witness=True)}, [play], "-e", json.dumps(facts))
        assert code == 0, text
        assert f"{asked} asked after" in text


PROGRAM = ROOT / "roles/remus_drill/files/remus_drill.py"
UNWRITABLE = """
import os, pathlib, sys
verb, folder, *more = sys.argv[1:]
folder = pathlib.Path(folder)
away = folder.with_name("away")
if verb == "mark" and more[0] in {phases}:
    sys.exit("No space left on device")
if verb == "settle" and {lost}:
    folder.rename(away)
    folder.touch()
if verb == "stop" and away.exists():
    folder.unlink()
    away.rename(folder)
os.execv(sys.executable, [sys.executable, {program}, *sys.argv[1:]])
"""


def unwritable(world: World, *phases: str, lost: bool = False) -> list[str]:
    """The drill's program on a disk that is full when these phases are to be marked. lost: the folder is gone while it is written
    down what was found at the end."""
    path = world.folder / "unwritable.py"
    path.write_text(UNWRITABLE.format(phases=phases, lost=lost, program=repr(str(PROGRAM))))
    return [sys.executable, str(path)]


def test_marks_that_cannot_be_written_keep_nothing_from_being_undone_and_are_told(world: World) -> None:
    program = unwritable(world, "mending", "mended", "end")
    text = " ".join(drill(world, *CONSENT, fails=True, __remus_drill_program=program).split())
    words = "; ".join(["No space left on device"] * 3)
    assert f"web1, agent_kill: The drill did not go as planned: {words}. State left: the guest is protected." in text
    assert (world.folder / "marks" / "undone").exists()
    (folder,) = reports(world)
    assert json.loads((folder / "report.json").read_text())["undone"][0]["undone"] in ("now", "timer")
    assert not (folder / "watching").exists()


def test_an_end_that_cannot_be_written_down_is_told_and_nobody_looks_any_more(world: World) -> None:
    text = " ".join(drill(world, *CONSENT, fails=True, __remus_drill_program=unwritable(world, lost=True)).split())
    assert "The drill did not go as planned: " in text
    assert "State left: the guest is not protected. Next: ask where it stands" in text
    (folder,) = reports(world)
    assert not (folder / "watching").exists()
    assert (world.folder / "marks" / "undone").exists()


def test_a_report_that_cannot_be_written_is_told_with_what_is_known(world: World) -> None:
    program = [sys.executable, "-c", "import sys; sys.exit('No space left on device')"]
    play = {"hosts": "localhost", "tasks": [{"include_role": {"name": "remus_drill", "tasks_from": "verify.yml"}}]}
    facts = {
        "__remus_drill_program": program,
        "__remus_drill_folder": "/results/drills/x",
        "__remus_drill_problem": "no answer",
        "__remus_drill_undone": [{"host": "alpha", "error": "it does not answer"}],
        "remus_drill_guest": {"name": "web1"},
    }
    code, text = run_plays(world.folder, {}, [play], "-e", json.dumps(facts))
    assert code != 0
    assert "the report cannot be written: No space left on device. The drill itself: no answer." in " ".join(
        text.split()
    )
    assert "State left: not undone on alpha (it does not answer)." in " ".join(text.split())
    assert f"Next: make that possible, then run '{program[0]} " in " ".join(text.split())


def test_a_controller_that_dies_leaves_the_undoing_to_the_host(world: World) -> None:
    played = threading.Thread(target=lambda: drill(world, *CONSENT, fails=True))
    played.start()
    deadline = time.monotonic() + 120
    while not (world.folder / "marks" / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for pid in playing(world):
        os.kill(pid, signal.SIGKILL)
    played.join(60)
    while not (world.folder / "marks" / "undone").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (world.folder / "marks" / "undo.sh").exists(), "nobody else was there to undo it"
    (folder,) = reports(world)
    program = str(ROOT / "roles/remus_drill/files/remus_drill.py")
    subprocess.run([sys.executable, program, "stop", str(folder)], check=True, timeout=60)
    subprocess.run([sys.executable, program, "report", str(folder)], check=True, timeout=60)
    assert "playbooks/status.yml" in json.loads((folder / "report.json").read_text())["next"][0]


def playing(world: World) -> list[int]:
    """Process ids of this world's playbook."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace")
            if "ansible-playbook" in words and str(world.folder) in words:
                found.append(int(path.parent.name))
    return found


def test_a_guest_that_does_not_answer_is_not_drilled(world: World) -> None:
    text = " ".join(
        drill(
            world,
            *CONSENT,
            fails=True,
            remus_drill_probe="echo no route >&2; exit 1",
            remus_drill_probe_timeout=5,
            __remus_drill_ready=10,
        ).split()
    )
    assert "the guest does not answer its client (no route)" in text
    assert not any("kill" in line for line in world.log())


def test_the_playbook_leaves_connections_to_the_inventory() -> None:
    """`connection: local` on a play also holds for tasks that it delegates to hosts without ansible_connection."""
    for play in yaml.safe_load((ROOT / "playbooks/drill.yml").read_text()):
        assert "connection" not in play
