"""The main job, for a person to watch: a guest under load survives the death of its host.

Boots the lab, installs the agents, protects the guest, loads it over one TCP connection, cuts the power of its
host, takes it over and judges what the client saw. Exit code: 0 when nothing that was acknowledged is lost and
the connection lived on.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LABCTL = (sys.executable, str(ROOT / "roles" / "xen_lab" / "files" / "labctl"))
PAIR = (sys.executable, str(ROOT / "tests" / "pair"))
PROOF = ROOT / "tests" / "proof"
GUEST, PRIMARY, BACKUP, REDIS = "redis1", "alpha", "beta", "10.77.0.100:6379"
QUIET = 15.0
"""Seconds after which a step that is at work shows its last line."""
LOAD = "200"
"""Replies before the power goes, and again after it."""


class StepFailed(Exception):
    """A step did not succeed; the message says where its output is."""


class Story:
    """Prints what happens with the time since the beginning, and keeps all output in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._began = time.monotonic()
        self._number = 0
        folder.mkdir(parents=True)

    def say(self, text: str) -> None:
        """One line with the elapsed time."""
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def step(self, title: str, *words: str) -> float:
        """Run a command to its end, showing now and then how far it is; seconds it took. Raises StepFailed."""
        self._number += 1
        log = self.folder / f"{self._number:02d}.log"
        self.say(f"{title} ...")
        began = time.monotonic()
        ended = threading.Event()
        with log.open("w") as file:
            process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
            watcher = threading.Thread(target=self._watch, args=(log, ended), daemon=True)
            watcher.start()
            try:
                code = process.wait()
            finally:
                ended.set()
                watcher.join()
        if code != 0:
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
            raise StepFailed(f"{title}: status {code}; everything it said is in {log}")
        return time.monotonic() - began

    def _watch(self, log: Path, ended: threading.Event) -> None:
        shown = ""
        while not ended.wait(QUIET):
            lines = [line.strip(" *") for line in log.read_text(errors="replace").splitlines() if line.strip()]
            last = lines[-1][:90] if lines else "at work"
            self.say("    still at it" if last == shown else f"    {last}")
            shown = last


@contextlib.contextmanager
def load(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The proof's client in the lab's network namespace, on its one connection; killed at the end if it still runs."""
    words = [*LABCTL, "exec", "--", sys.executable, str(PROOF / "client.py"), "--guest", REDIS]
    with (folder / "client.log").open("w") as log:
        client = subprocess.Popen(
            [*words, "--history", str(folder / "history.jsonl")], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield client
        finally:
            if client.poll() is None:
                client.kill()
                client.wait()


def prepare(story: Story) -> None:
    """From nothing to a protected guest."""
    play = (str(Path(sys.executable).with_name("ansible-playbook")),)
    story.step("Booting two nested Xen hosts", *play, "playbooks/lab.yml", "-e", "lab_state=present")
    story.step(f"Starting the guest {GUEST} (Redis) on {PRIMARY}", *PAIR, "ensure")
    story.step("Installing the agents (playbooks/site.yml)", *play, "playbooks/site.yml")
    took = story.step("Protecting the guest (protect.yml)", *play, "protect.yml")
    story.say(f"{GUEST} runs on {PRIMARY} and is replicated to {BACKUP}; that took {took:.0f} s")


def fail_over(story: Story) -> dict[str, Any]:
    """Load, power loss, failover; the checker's report."""
    play = str(Path(sys.executable).with_name("ansible-playbook"))
    history = story.folder / "history.jsonl"
    with load(story.folder) as client:
        story.step(
            f"A client writes over one TCP connection, until {LOAD} replies", *PAIR, "replies", str(history), LOAD
        )
        story.step(f"Cutting the power of {PRIMARY}", *LABCTL, "kill", PRIMARY)
        killed = time.time()
        took = story.step("Failover (failover.yml)", play, "failover.yml", "-e", f"remus_domain={GUEST}")
        story.say(f"the guest is taken over by {BACKUP}; the playbook took {took:.0f} s")
        story.step(f"The same connection goes on, {LOAD} more replies", *PAIR, "replies", str(history), LOAD)
        client.send_signal(signal.SIGTERM)
        if client.wait(600) != 0:
            raise StepFailed(f"the client failed; see {story.folder / 'client.log'}")
    report = story.folder / "proof.json"
    words = (str(PROOF / "checker.py"), str(history), "--guest", REDIS, "--report", str(report))
    checked = subprocess.run(
        [*LABCTL, "exec", "--", sys.executable, *words, "--mark", f"power loss={killed:.6f}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    story.say("What the client saw, and what the guest holds now:")
    print("\n".join(f"    {line}" for line in (checked.stdout + checked.stderr).splitlines()))
    if not report.exists():
        raise StepFailed("the checker could not judge")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def main() -> int:
    """Tell the story."""
    folder = ROOT / "results" / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    story = Story(folder)
    try:
        prepare(story)
        report = fail_over(story)
    except StepFailed as error:
        story.say(f"VERDICT: FAILED. {error}")
        return 1
    kept = report["verdict"] == "kept"
    gap = (report["longest_gap"] or {"seconds": 0.0})["seconds"]
    story.say(
        f"VERDICT: {'PROVEN' if kept else 'RED'}. {PRIMARY} is dead, {GUEST} runs on {BACKUP};"
        f" its client waited {gap:.1f} s, {report['lost']['count']} acknowledged replies are lost."
    )
    story.say(f"Everything is kept in {folder.relative_to(ROOT)}. The lab stays up; stop it with: make lab-down")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
