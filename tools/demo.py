"""`make demo`: the main job, shown to a person. A guest under load survives the death of its host; the proof is printed.

Every step is a command that can be typed by hand; it is printed before it runs. The two hosts are stopped at the end,
unless --keep is given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from pair import load as clients  # noqa: E402 - the path above
from pair.hosts import CommandFailed  # noqa: E402
from pair.wait import TooLate  # noqa: E402

LABCTL = (sys.executable, "roles/xen_lab/files/labctl")
STARTED = time.monotonic()


def say(text: str) -> None:
    """One line with the elapsed time."""
    seconds = int(time.monotonic() - STARTED)
    print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {text}", flush=True)


def do(why: str, *command: str) -> None:
    """Say why, run a command, let its output through. Raises CalledProcessError."""
    say(f"{why}\n        $ {' '.join(word.replace(sys.executable, 'python3') for word in command)}")
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True, timeout=3600)


def story() -> dict[str, Any]:
    """Everything from nothing to the checker's report."""
    do(
        "Boot two nested Xen hosts, alpha and beta (the first time their image is built)",
        "ansible-playbook",
        "playbooks/lab.yml",
    )
    do("Prepare both hosts and install the agent", "ansible-playbook", "playbooks/site.yml")
    do("Start the guest on alpha: a real Redis server", sys.executable, "tests/pair", "home")
    do("Protect it: beta gets a copy, and a new checkpoint several times a second", "ansible-playbook", "protect.yml")
    history = ROOT / "results" / "demo" / "history.jsonl"
    say("A client counts upwards over one TCP connection and writes down every reply it gets")
    with clients.load(history, "--seconds=3000") as client:
        client.wait_for(150, timeout=600)
        say(f"{client.acknowledged()} replies so far")
        do("Cut alpha's power, without a word to anybody", *LABCTL, "kill", "alpha")
        killed = clients.now()
        do(
            "Fail over: the playbook wants proof that alpha is off",
            "ansible-playbook",
            "failover.yml",
            "-e",
            "remus_domain=redis1",
        )
        activated = clients.now()
        client.wait_for(150, timeout=600)
        say(f"{client.acknowledged()} replies: the client goes on at beta, on the same connection")
        client.stop()
        say("Compare what the client was told with what the guest knows")
        return client.judge({"killed": killed, "failover done": activated})


def tell(report: dict[str, Any]) -> bool:
    """Print the proof; whether it holds."""
    good = bool(report["verdict"] == "kept")
    text = ROOT / "results" / "demo" / "history.report.json"
    for key, value in report.items():
        if isinstance(value, str | int | float | bool):
            print(f"        {key.replace('_', ' ')}: {value}")
    print(f"        the whole report: {text.relative_to(ROOT)}")
    return good


def main() -> int:
    """Run the story; 0 when the proof holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the two hosts running")
    keep = parser.parse_args().keep
    failure: str | None = None
    good = False
    try:
        good = tell(story())
    except subprocess.CalledProcessError as error:
        failure = f"this step ended with status {error.returncode}: {' '.join(map(str, error.cmd))}"
    except (subprocess.TimeoutExpired, TooLate, CommandFailed) as error:
        failure = str(error)
    finally:
        if not keep:
            finish(lambda: do("Stop the hosts", "ansible-playbook", "playbooks/lab.yml", "-e", "lab_state=absent"))
    if failure is not None:
        say(f"VERDICT: the demo FAILED: {failure}")
        return 1
    if not good:
        say("VERDICT: FAILED: a client was told something that is lost, or was cut off")
        return 1
    say("VERDICT: the guest survived its host; nothing that a client was told is lost, and its connection lives")
    return 0


def finish(step: Callable[[], None]) -> None:
    """Clean up without hiding what happened before."""
    try:
        step()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        say(f"cleaning up failed: {error}")


if __name__ == "__main__":
    sys.exit(main())
