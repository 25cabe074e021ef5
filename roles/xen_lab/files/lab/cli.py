"""The command line. Progress goes to stdout line by line; the last line is a JSON object with ``changed``.

Exceptions: ``status`` prints JSON only, ``fence-status`` prints ``on`` or ``off``, ``chassis`` what a BMC expects, ``exec``
becomes the command it is given.
Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from lab.errors import LabError
from lab.network import DIRECTIONS
from lab.pair import Pair
from lab.progress import Progress
from lab.spec import HYPERVISORS, KINDS, MACHINES, NETWORKS, RELEASES, WITNESS, Paths, Settings, load_settings

NAMES = [host.name for host in MACHINES]


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="labctl", description=(__doc__ or "").partition("\n")[0])
    top.add_argument("--state", help="the lab's folder (default: $REMUS_LAB_DIR, else .lab in the project)")
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    for name, text in (
        ("image", "build the hosts' disk image unless it is cached"),
        ("up", "bring both hosts up"),
    ):
        command = add(name, text)
        command.add_argument("--debian", type=int, choices=sorted(RELEASES), default=None)
        command.add_argument(
            "--hosts", choices=KINDS, default=None, help="with Xen, or bare Debian that boots from its disk"
        )
        if name == "up":
            command.add_argument("--ssh-base-port", type=int, default=None)
            command.add_argument("--memory", type=int, default=None, help="MiB a host")
            command.add_argument("--processors", type=int, default=None, help="of a host; dom0 has one")
            command.add_argument("--boot-timeout", type=int, default=None, help="seconds for one boot")
            command.add_argument(
                "--hypervisor", choices=sorted(HYPERVISORS), default=None, help="which Xen of the release"
            )
            command.add_argument("--namespace", default=None, help="name of the network namespace")
            command.add_argument(
                "--witness", action="store_true", help=f"bring the witness, {WITNESS.name}, up as well"
            )
            command.add_argument(
                "--bmc", action="store_true", help="give each host a BMC, which fence agents reach over IPMI"
            )
    guest = add("guest", "build the guest unless it is cached")
    guest.add_argument("action", choices=["build"])
    guest.add_argument("--debian", type=int, choices=sorted(RELEASES), default=None)
    add("down", "stop what this lab started and remove its disks and network")
    add("status", "print the lab's state as JSON")
    for name, text in (
        ("kill", "power loss: kill the host's QEMU at once"),
        ("freeze", "stop the host's QEMU in its tracks (it stays powered)"),
        ("thaw", "let a frozen host go on"),
        ("start", "boot a host again"),
        ("fence-status", "print on or off: whether the host's QEMU process is alive"),
    ):
        command = add(name, text)
        command.add_argument("host", choices=NAMES)
        if name == "start":
            command.add_argument("--fresh", action="store_true", help="with a new disk")
    for name, text in (("cut", "drop all frames of a network"), ("heal", "undo a cut")):
        command = add(name, text)
        command.add_argument("network", choices=sorted(NETWORKS))
        command.add_argument("host", choices=NAMES, nargs="?", help="only this host's cable")
        command.add_argument("--peer", choices=NAMES, help="only between this host and HOST")
        command.add_argument("--direction", choices=sorted(DIRECTIONS), default="both", help="as the host sees it")
    chassis = add("chassis", "what a host's BMC asks and orders: chassis HOST get power, chassis HOST set power 0")
    chassis.add_argument("host", choices=NAMES)
    chassis.add_argument("words", nargs=argparse.REMAINDER)
    run = add("exec", "run a command in the lab's network namespace: exec -- CMD")
    run.add_argument("argv", nargs=argparse.REMAINDER)
    return top


def settings_for(options: argparse.Namespace, paths: Paths) -> Settings:
    """Settings of the lab that is up, which options may not contradict, or those that the options ask for."""
    wanted = {
        "debian": getattr(options, "debian", None),
        "namespace": getattr(options, "namespace", None),
        "ssh_base_port": getattr(options, "ssh_base_port", None),
        "memory_mib": getattr(options, "memory", None),
        "processors": getattr(options, "processors", None),
        "boot_timeout": getattr(options, "boot_timeout", None),
        "hypervisor": getattr(options, "hypervisor", None),
        "hosts": getattr(options, "hosts", None),
    }
    given = {key: value for key, value in wanted.items() if value is not None}
    known = load_settings(paths)
    if known is None or options.command in ("image", "guest"):
        return Settings(**given)
    fixed = {key: value for key, value in given.items() if key != "boot_timeout" and getattr(known, key) != value}
    if fixed:
        said = ", ".join(f"{key} {getattr(known, key)}, not {value}" for key, value in fixed.items())
        raise LabError(f"the lab in {paths.state} is up with {said}; take it down first")
    return replace(known, **given)


def perform(options: argparse.Namespace, pair: Pair) -> bool:
    """Carry out a command that changes something; True when it did."""
    match options.command:
        case "image":
            changed = pair.build_image()
        case "guest":
            changed = pair.build()
        case "up":
            changed = pair.up(options.witness, options.bmc)
        case "down":
            changed = pair.down()
        case "cut" | "heal" as verb:
            network, cut = pair.network, verb == "cut"
            changed = network.change_link(options.network, options.host, options.direction, cut, options.peer)
        case "start":
            changed = pair.start(options.host, options.fresh)
        case "kill":
            changed = pair.host(options.host).kill()
        case "freeze":
            changed = pair.host(options.host).signal(signal.SIGSTOP)
        case "thaw":
            changed = pair.host(options.host).signal(signal.SIGCONT)
        case other:
            raise LabError(f"unknown command {other}")
    return changed


def enter(options: argparse.Namespace, pair: Pair) -> None:
    """Become the command of ``exec`` inside the lab's network namespace."""
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise LabError("exec needs a command: exec -- CMD")
    if not pair.network.exists():
        raise LabError("the lab has no network; bring it up first")
    sys.stdout.flush()
    os.execvp("ip", ["ip", "netns", "exec", pair.settings.namespace, *argv])  # noqa: S606


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line WORDS; exit status."""
    options = parser().parse_args(words)
    try:
        paths = Paths.from_environment(options.state)
        # ipmi_sim takes every line for an answer.
        pair = Pair(paths, settings_for(options, paths), Progress(quiet=options.command == "chassis"))
        if options.command == "status":
            print(json.dumps(pair.status(), indent=2))
        elif options.command == "fence-status":
            print("on" if pair.host(options.host).running() else "off")
        elif options.command == "chassis":
            for line in pair.chassis(options.host).answer(options.words):
                print(line)
        elif options.command == "exec":
            enter(options, pair)
        else:
            print(json.dumps({"changed": perform(options, pair)}))
    except LabError as error:
        print(f"labctl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("labctl: interrupted", file=sys.stderr)
        return 130
    return 0
