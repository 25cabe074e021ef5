"""The pair from playbooks: `python3 tests/pair COMMAND`.

ensure              the guest runs on alpha (left alone when it does) and answers
home                the guest on alpha, nowhere else, protected by nobody; hosts that are off are booted
ready               says "yes" when site.yml has nothing to do, as far as is quick to see: the agents are there, of this tree
collect FOLDER      logs of both hosts
generation HOST     that of the guest in the status of this host's agent
replies HISTORY N   wait until the proof's client has N more replies
switchovers FOLDER N   move the guest N times by the playbook, with replies to the proof's client after each; FOLDER/moves.json
incidents SCENARIO  names of what can happen in this scenario
happen FOLDER SCENARIO NAME   let it happen, undo it when somebody is in charge; adds to FOLDER/incidents.json
stop PID-FILE       tell the proof's client to end, and wait for that
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pair import agent, wait
from pair.collect import collect
from pair.guest import come_home, ensure_running
from pair.hosts import HOSTS, CommandFailed, labctl, powered, ssh_config
from pair.incidents import INCIDENTS, happen
from pair.load import acknowledged
from pair.protection import at_home
from pair.ready import ready
from pair.switchovers import switchovers


def home() -> None:
    """The defined state that every scenario starts from. A guest that runs and answers there is left alone."""
    off = [host for host in HOSTS if not powered(host)]
    for host in off:
        labctl("start", host)
    if off or not at_home():
        come_home()


def replies(history: Path, more: int) -> None:
    """Wait until the client has more replies than now."""
    before = acknowledged(history)
    wait.until(
        f"{more} more replies than {before}",
        lambda: acknowledged(history),
        lambda count: count >= before + more,
        timeout=600,
    )


def stop(pid_file: Path) -> None:
    """End the client, which then reads the final state."""
    pid = int(pid_file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)

    def alive() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    wait.until("the client ends", alive, lambda lives: not lives, timeout=600)
    pid_file.unlink()


def main(words: list[str]) -> int:
    """Run one command."""
    match words:
        case ["ensure"]:
            ensure_running()
        case ["home"]:
            home()
        case ["ready"]:
            print("yes" if ready() else "no")
        case ["collect", folder]:
            for path in collect(Path(folder)):
                print(path)
        case ["generation", host]:
            print(agent.status(host)["generation"])
        case ["replies", history, more]:
            replies(Path(history), int(more))
        case ["switchovers", folder, count]:
            switchovers(Path(folder), int(count))
        case ["incidents", scenario] if scenario in INCIDENTS:
            print("\n".join(INCIDENTS[scenario]))
        case ["happen", folder, scenario, name] if name in INCIDENTS.get(scenario, {}):
            happen(Path(folder), scenario, name)
        case ["stop", pid_file]:
            stop(Path(pid_file))
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    return 0


def reported(words: list[str]) -> int:
    """The same; what a host or the lab refuses is a message, which a playbook shows, and status 1."""
    try:
        return main(words)
    except (CommandFailed, agent.AgentError, wait.TooLate) as error:
        where = "" if ssh_config().exists() else f"there is no lab at {ssh_config().parent}: run `make lab-up` first\n"
        sys.stderr.write(f"{where}{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(reported(sys.argv[1:]))
