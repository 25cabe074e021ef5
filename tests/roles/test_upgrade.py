"""playbooks/upgrade.yml on a pair that is this machine: order, waiting, back, undone, refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.modules.test_protection import status
from tests.roles import stand_in_release
from tests.roles.local_play import run_play, run_playbook

pytestmark = [pytest.mark.playbooks, pytest.mark.timeout(1800)]

OLD = "0.0.9-old"
ROLE_VARIABLES = {
    "__remus_agent_configuration": "{{ stand_in }}/etc/agent.toml",
    "__remus_agent_secrets_dir": "{{ stand_in }}/etc",
    "__remus_agent_unit_dir": "{{ stand_in }}/units",
    "__remus_agent_completions": "{{ stand_in }}/completions",
    "__remus_agent_delivered": "{{ stand_in }}/remus-{{ __remus_agent_release }}.tar",
    "__remus_agent_folders": ["{{ stand_in }}/etc"],
    "__remus_agent_links": {},
    "remus_upgrade_pause": 1,
    "remus_preflight_hosts": "all:!all",
}
"""What the role keeps to itself on a real host."""


@dataclass
class Pair:
    """Two hosts that run OLD, and what they say of their guests."""

    folder: Path

    def say(self, **guests: list[dict[str, Any]]) -> None:
        """Statuses by host."""
        (self.folder / "guests.json").write_text(json.dumps(guests))

    def upgrade(self, *options: str, fails: bool = False, **variables: Any) -> str:
        """Run the playbook; what it printed."""
        words = ("-e", json.dumps(ROLE_VARIABLES | variables), *options)
        code, text = run_playbook(self.folder, self.inventory(), "upgrade", *words, variables=self.variables())
        assert (code != 0) is fails, text
        return text

    def role(self, *options: str) -> str:
        """Run the role alone, as site.yml does; what it printed."""
        inventory = self.inventory()
        inventory["children"]["remus_hosts"]["vars"] = self.variables()
        words = ("-e", json.dumps(ROLE_VARIABLES), *options)
        code, text = run_play(self.folder, inventory, {"serial": 1, "roles": ["remus_agent"]}, *words)
        assert code == 0, text
        return text

    def inventory(self) -> dict[str, Any]:
        """Its group `all`."""
        hosts = {
            host: {
                "stand_in": str(self.folder / host),
                "remus_replication_address": f"203.0.113.{number}",
                "remus_agent_prefix": str(self.folder / host / "opt"),
                "remus_agent_run_dir": str(self.folder / host / "run"),
                "remus_agent_state_dir": str(self.folder / host / "state"),
                "remus_agent_services": [f"{host}-agent"],
                "ansible_connection": f"{{{{ 'ssh' if '{self.folder}/gone-{host}' is exists else 'local' }}}}",
                "ansible_host": f"127.0.0.{number}",
                "ansible_port": 1,
            }
            for number, host in enumerate(("alpha", "beta"), 1)
        }
        return {"children": {"remus_hosts": {"hosts": hosts}}}

    def variables(self) -> dict[str, Any]:
        """Of both hosts."""
        return {
            "remus_pki_enabled": False,
            "remus_agent_admin_group": "",
            "remus_agent_health_timeout": 10,
            "remus_agent_wheelhouse_dir": str(self.folder / "wheelhouse"),
            "remus_results_dir": str(self.folder / "results"),
            "remus_guests": [{"name": "web1", "hosts": ["alpha", "beta"]}],
        }

    def kill(self, host: str) -> None:
        """Its agent; safe to call twice."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((self.folder / host / "pid").read_text()), signal.SIGKILL)

    def note(self, host: str) -> None:
        """What its agent has noted when it was about to run a guest by an operator's word."""
        folder = self.folder / host / "state" / "guests"
        folder.mkdir(parents=True)
        record = {"name": "web1", "peer": "alpha", "override": "alpha is off", "starting": "web1--incoming-01234567"}
        (folder / "web1.json").write_text(json.dumps(record))

    def interrupted(self, host: str, name: str) -> str:
        """A file is there that this host's agent was not started with; what it says that it has read, from before."""
        (self.folder / host / "etc" / name).touch()
        read = self.folder / host / "read"
        before = read.read_text()
        read.write_text(json.dumps(json.loads(before) | {str(self.folder / host / "etc" / name): "other"}))
        return before

    def started(self) -> list[str]:
        """Which agents were started since the last call, in order."""
        log = self.folder / "log"
        lines = log.read_text().splitlines()
        log.write_text("")
        return [line.removeprefix("start ") for line in lines]

    def releases(self) -> list[str]:
        """What `current` leads to, on alpha and on beta."""
        return [(self.folder / host / "opt" / "current").readlink().name for host in ("alpha", "beta")]

    def release_of_this_tree(self, **how: Any) -> str:
        """The one that the playbook would install; see stand_in_release.archive."""
        return stand_in_release.offer(self.folder / "wheelhouse", **how)


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """web1 runs on alpha, beta keeps its copy."""
    folder = tmp_path_factory.mktemp("u")
    monkeypatch.setenv("PATH", f"{stand_in_release.systemctl(folder)}:{os.environ['PATH']}")
    made = Pair(folder)
    made.say(alpha=[status(peer="beta")], beta=[status("backup", "ready", "alpha")])
    for host in ("alpha", "beta"):
        for name in ("run", "etc", "units"):
            (folder / host / name).mkdir(parents=True)
        (folder / host / "etc" / "agent.toml").write_text("# of before\n")
        stand_in_release.install(folder, host, OLD)
        subprocess.run(["systemctl", "start", f"{host}-agent"], check=True)
    try:
        for host in ("alpha", "beta"):
            wait_for(folder / host / "run" / "agent.sock")
            (folder / host / "asked").write_text("9")
        made.started()
        yield made
    finally:
        for host in ("alpha", "beta"):
            made.kill(host)


def wait_for(path: Path) -> None:
    """Until a file is there, at most half a minute."""
    subprocess.run(["timeout", "30", "sh", "-c", f"until test -e {path}; do :; done"], check=True)


def changed(text: str) -> dict[str, int]:
    """By host, from the recap."""
    recap = text.split("PLAY RECAP")[1]
    return {host: int(count) for host, count in re.findall(r"^(\w+) .*?changed=(\d+)", recap, re.MULTILINE)}


def test_one_host_after_the_other_and_back(pair: Pair) -> None:
    new = pair.release_of_this_tree()
    version = new.partition("-")[0]

    text = pair.upgrade("--check", "--diff")
    assert (pair.releases(), pair.started()) == ([OLD, OLD], [])
    assert f"beta: {OLD} -> {new}, its agent is restarted; held meanwhile: web1" in text
    assert changed(text)["alpha"] > 0
    before_the_plan = text.split("PLAY [Upgrade | Who is first, and whether now (2/4)]")[0]
    assert "Ask the agent" in before_the_plan
    assert "toolstack" not in before_the_plan, "the plan does not need it"

    text = pair.upgrade()
    assert pair.releases() == [new, new]
    assert pair.started() == [f"beta {version}", f"alpha {version}"], "the backup comes first, each is restarted once"
    # beta's turn waited for alpha's word that the guest is protected, and alpha's for its own session.
    assert text.index("PLAY [Upgrade | One host after the other (3/4)]") < text.index(
        "Wait until every guest is protected"
    )
    assert "retrying" in text.lower(), "alpha says `seeding` after its start"

    text = pair.upgrade()
    assert (changed(text), pair.started()) == ({"alpha": 0, "beta": 0, "localhost": 0}, [])

    # A configuration that the old release refuses: it gets the one that it ran with.
    (pair.folder / "alpha" / "etc" / "agent.toml").write_text("\0")
    text = pair.upgrade("-e", "remus_upgrade_back=true", "--check", "--diff")
    assert (pair.releases(), pair.started()) == ([new, new], [])
    pair.upgrade("-e", "remus_upgrade_back=true")
    assert pair.releases() == [OLD, OLD]
    assert pair.started() == ["beta 0.0.9", "alpha 0.0.9"]
    assert (pair.folder / "alpha" / "etc" / "agent.toml").read_text() == "# of before\n"
    assert "[host]" in (pair.folder / "beta" / "etc" / "agent.toml").read_text(), "accepted, so it stays"
    text = pair.upgrade("-e", "remus_upgrade_back=true")
    assert (changed(text), pair.started()) == ({"alpha": 0, "beta": 0, "localhost": 0}, [])


def test_a_run_that_was_interrupted_before_the_restart_is_finished_by_the_next(pair: Pair) -> None:
    """It has written a configuration, or the list of disks, that a host's agent has never read; the other host is left alone."""
    pair.release_of_this_tree()
    pair.role()
    pair.started()
    pair.interrupted("alpha", "agent.toml")
    everything = pair.interrupted("beta", "disks.toml")
    assert (changed(pair.role("--check")), pair.started()) == ({"alpha": 1, "beta": 1}, [])
    (pair.folder / "beta" / "read").write_text(everything)
    said = changed(pair.role())
    assert (said["beta"], [line.split()[0] for line in pair.started()]) == (0, ["alpha"])
    pair.interrupted("beta", "disks.toml")
    said = changed(pair.role())
    assert (said["alpha"], [line.split()[0] for line in pair.started()]) == (0, ["beta"])
    assert (changed(pair.role()), pair.started()) == ({"alpha": 0, "beta": 0}, [])


def test_a_release_that_does_not_start_is_undone_and_the_primary_is_not_touched(pair: Pair) -> None:
    new = pair.release_of_this_tree(starts=False)
    said = " ".join(pair.upgrade(fails=True, remus_agent_health_timeout=5).split())
    assert f"beta was not brought to {new}: No agent answers" in said
    assert f"Undone: {OLD} runs there again, and its guests are protected as before" in said
    assert "State left: no other host was touched" in said
    assert pair.releases() == [OLD, OLD]
    assert pair.started() == ["beta 0.0.9"]
    assert (pair.folder / "beta" / "etc" / "agent.toml").read_text() == "# of before\n"


@pytest.mark.parametrize("back", [False, True], ids=["undone", "gone back"])
def test_what_fence_agents_keep_secret_comes_back_with_the_configuration_that_names_it(pair: Pair, back: bool) -> None:
    """The release from before refuses a configuration of which one is missing."""
    etc = pair.folder / "beta" / "etc"
    secrets = [etc / "fence-gone.secrets", etc / "fence-alpha.secrets"]
    for path in secrets:
        path.write_text("password=of before\n")
        path.chmod(0o600)
    pair.release_of_this_tree(starts=back)
    if back:
        text = pair.upgrade("--diff")
        assert [path.exists() for path in secrets] == [False, False], "the inventory names no fence agent"
        (etc / "agent.toml").write_text("\0")
        text += pair.upgrade("-e", "remus_upgrade_back=true", "--diff")
    else:
        entry = {"agent": "fence_dummy", "secrets": {"password": "new"}}
        fencing = f"{{{{ {{'alpha': {entry}}} if inventory_hostname == 'beta' else {{}} }}}}"
        text = pair.upgrade("--diff", fails=True, remus_agent_health_timeout=5, remus_agent_fencing=fencing)
    assert (etc / "agent.toml").read_text() == "# of before\n"
    for path in (*secrets, *(pair.folder / "beta" / "opt" / OLD / path.name for path in secrets)):
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("password=of before\n", 0o600)
    assert "password=" not in text


def test_a_systemd_that_refuses_is_told_in_its_words(pair: Pair) -> None:
    new = pair.release_of_this_tree()
    (pair.folder / "beta" / "refuses").touch()
    said = " ".join(pair.upgrade(fails=True).split())
    refused = "service beta-agent: it has no memory left"
    assert f"beta was not brought to {new}: Unable to restart {refused} Undone:" in said
    assert f"Undone: {OLD} was to run there again, but: Unable to start {refused}." in said
    assert (pair.releases(), pair.started()) == ([OLD, OLD], [])


def test_a_configuration_that_cannot_be_kept_is_not_missed_afterwards(pair: Pair) -> None:
    """As on a full disk: nothing was changed by then, and what ran goes on."""
    new = pair.release_of_this_tree()
    said = " ".join(pair.upgrade(fails=True, remus_upgrade_kept=str(pair.folder / "nowhere" / "agent.toml")).split())
    assert re.search(
        f"beta was not brought to {new}: \\S.*nowhere.* Undone: {OLD} runs there again, and its guests", said
    )
    assert pair.releases() == [OLD, OLD]
    assert (pair.folder / "beta" / "etc" / "agent.toml").read_text() == "# of before\n"


def test_another_build_of_the_same_version_is_not_taken_for_it(pair: Pair) -> None:
    """An upgrade before it was interrupted when it had written its configuration, which the agent that runs has never read: what
    that one has kept is what this one brings back."""
    new = pair.release_of_this_tree(build="0.1.0-fedcba9876")
    (pair.folder / "beta" / "opt" / OLD / "agent.toml").write_text("# of before\n")
    (pair.folder / "beta" / "etc" / "agent.toml").write_text("# of the new release\n")
    said = " ".join(pair.upgrade(fails=True).split())
    assert f"The agent that answers is beta 0.1.0-fedcba9876, expected beta {new}" in said
    assert f"Undone: {OLD} runs there again" in said
    assert pair.releases() == [OLD, OLD]
    assert (pair.folder / "beta" / "etc" / "agent.toml").read_text() == "# of before\n"


def test_a_host_that_is_gone_in_its_turn_is_told_in_our_words(pair: Pair) -> None:
    new = pair.release_of_this_tree(fells={"beta": "beta"})
    said = " ".join(pair.upgrade("-e", "remus_upgrade_timeout=3", fails=True).split())
    assert f"beta does not answer any more, on its way from {OLD} to {new}" in said
    assert "State left: no other host was touched" in said
    assert "Next: see to beta" in said
    assert pair.releases()[0] == OLD
    assert pair.started() == [f"beta {new.partition('-')[0]}"]


def test_a_host_whose_partner_is_gone_meanwhile_is_left_alone(pair: Pair) -> None:
    """Its agent may be about to run the guest of the other one: restarting it once more would take the copy away."""
    new = pair.release_of_this_tree(fells={"beta": "alpha"})
    said = " ".join(pair.upgrade("-e", "remus_upgrade_timeout=3", fails=True).split())
    assert f"alpha does not answer any more, while beta was brought to {new}" in said
    assert "beta runs the new release, and was not restarted again" in said
    assert pair.releases() == [OLD, new]
    assert pair.started() == [f"beta {new.partition('-')[0]}"]


def test_a_guest_that_does_not_come_back_is_named_with_what_was_upgraded_already(pair: Pair) -> None:
    """alpha's guest stays unprotected after its restart: alpha is brought back, beta keeps the new release."""
    new = pair.release_of_this_tree(spoils="alpha")
    said = " ".join(pair.upgrade("-e", "remus_upgrade_timeout=3", fails=True).split())
    assert f"alpha was not brought to {new}" in said
    assert f"Undone: {OLD} was to run there again, but" in said
    assert "State left: beta with the new release" in said
    assert "-e remus_upgrade_back=true to bring beta back as well" in said
    assert pair.releases() == [OLD, new]


def refused(pair: Pair, *options: str) -> str:
    """What the playbook says against it, on one line."""
    text = pair.upgrade(*options, fails=True)
    assert set(changed(text).values()) == {0}
    assert (pair.releases(), pair.started()) == ([OLD, OLD], [])
    said = " ".join(text.split())
    assert "nothing was changed" in said
    return said


def test_refused_with_nothing_changed(pair: Pair) -> None:
    pair.release_of_this_tree()
    said = refused(pair, "-e", "remus_upgrade_back=maybe")
    assert "remus_upgrade_back and remus_upgrade_unprotected are true or false" in said
    pair.say(alpha=[status(state="silent")], beta=[status("backup", "orphaned", "alpha")])
    assert "web1 is not protected (alpha says silent, beta says orphaned)" in refused(pair)
    pair.say(alpha=[status(state="switching")], beta=[status("backup", "ready", "alpha")])
    said = refused(pair, "-e", "remus_upgrade_unprotected=true", "-e", "remus_upgrade_back=true")
    assert "web1 is changing its state or its host" in said
    assert "alpha has no previous release" in said


def test_back_is_refused_where_a_dead_agent_has_noted_that_a_guest_is_about_to_run(pair: Pair) -> None:
    """The release from before may destroy what is built."""
    for host in ("alpha", "beta"):
        stand_in_release.install(pair.folder, host, "0.0.8-before")
        stand_in_release.install(pair.folder, host, OLD)
        (pair.folder / host / "opt" / "previous").symlink_to("0.0.8-before")
    pair.say(alpha=[], beta=[])
    pair.kill("beta")
    (pair.folder / "beta" / "run" / "agent.sock").unlink()
    pair.note("beta")
    text = pair.upgrade("-e", "remus_upgrade_back=true", fails=True)
    assert "web1 is built on beta and about to run there by an operator's word" in " ".join(text.split())
    assert "nothing was changed" in text
    assert (pair.releases(), pair.started()) == ([OLD, OLD], [])


def test_back_says_what_is_missing_where_no_configuration_was_kept(pair: Pair) -> None:
    """Not upgrade.yml but site.yml has installed the release that runs, and the one from before refuses what it has written."""
    new = pair.release_of_this_tree()
    pair.role()
    for host in ("alpha", "beta"):
        (pair.folder / host / "etc" / "agent.toml").write_text("\0")
    said = " ".join(pair.upgrade("-e", "remus_upgrade_back=true", fails=True).split())
    assert f"beta was not brought to {OLD}: it refuses the present configuration" in said
    assert f"To go back, write one to {pair.folder}/beta/opt/{OLD}/agent.toml" in said
    assert f"Undone: {new} runs there again" in said
    assert pair.releases() == [new, new]


def test_a_release_that_was_about_to_run_a_guest_is_not_undone(pair: Pair) -> None:
    """It fails to start, and what it would leave to the one from before is noted."""
    new = pair.release_of_this_tree(starts=False)
    pair.note("beta")
    said = " ".join(pair.upgrade(fails=True).split())
    assert f"Undone: {OLD} was to run there again, but: web1 stands there built, paused and about to run" in said
    assert pair.releases() == [OLD, new]


def test_agents_that_could_not_talk_are_refused(pair: Pair) -> None:
    """The installed release speaks an older protocol than this tree's."""
    pair.release_of_this_tree()
    for host in ("alpha", "beta"):
        (messages,) = (pair.folder / host / "opt" / OLD).rglob("replication/messages.py")
        messages.write_text("PROTOCOL: Final = 1\n")
    assert "would speak protocol 2 and alpha protocol 1, so web1 could not stay protected" in refused(pair)
