"""`remus-disks`: the mapper devices in front of the disks that can be protected. remus-disks.service runs `up` at each boot
before any guest starts; what changes while a guest is protected is the agent's business."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from remus_agent import config, disk_config, group_config
from remus_agent.adapters.disk import host, mapper
from remus_agent.cli import render
from remus_agent.disk_config import Disk
from remus_agent.errors import ConfigError, RefusedError, RemusError

if TYPE_CHECKING:
    from remus_agent.adapters.disk.release import Releasable

INTERRUPTED: Final = 130
DANGER: Final = (
    "Its content becomes that of the last commit, which may be older than what the guest has on the other host; without a"
    " whole commit it is a mixture that no guest should start from. Two hosts that both let the guest run on its disk have two"
    " diverging disks. This host's copy is no backup any more: the next protection copies the disk anew."
)
EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 wrong arguments or list of disks, 3 refused, 10 a journal, 16 a disk or its device,"
    " 130 interrupted."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. No traceback reaches the user."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except RemusError as error:
        _complain(error, options.json)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(
        prog="remus-disks", description="Put the disks of guests behind their mapper devices.", epilog=EPILOG
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, default=config.DEFAULT_PATH, help="agent's configuration (%(default)s)")
    shared.add_argument("--state", type=Path, help="agent's directory (default: what its configuration says)")
    shared.add_argument("--json", action="store_true", help="print JSON")
    verbs = main_parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text, parents=[shared])
        if name != "check":
            made.add_argument(
                "--disks",
                type=Path,
                default=disk_config.DEFAULT_PATH,
                metavar="FILE",
                help="list of disks (%(default)s)",
            )
        return made

    up = verb("up", "make the mapper devices that are missing, and correct those that nobody uses")
    up.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for devices to appear")
    up.add_argument("--dry-run", action="store_true", help="say what would be done")
    verb("status", "show every disk and its mapper device")
    down = verb("down", "take away mapper devices that nobody uses")
    down.add_argument("names", nargs="*", metavar="NAME", help="remus-DOMAIN-VDEV (default: all that nobody uses)")
    give = verb("release", "use a backup's copy of a disk that is not needed any more as this host's own disk")
    give.description = f"{give.description}. {DANGER}"
    give.add_argument("names", nargs="+", metavar="NAME", help="remus-DOMAIN-VDEV, see `remus-disks status`")
    give.add_argument("--yes", action="store_true", help="do not ask")
    give.add_argument("--dry-run", action="store_true", help="say what would be done")
    check = verb("check", "check a list of disks and the devices in it")
    check.add_argument(
        "disks",
        nargs="?",
        type=Path,
        default=disk_config.DEFAULT_PATH,
        metavar="FILE",
        help="list of disks (%(default)s)",
    )
    return main_parser


async def _run(options: argparse.Namespace) -> int:
    paths = _paths(options)
    state = paths.state
    disks = disk_config.load(options.disks, state, paths.run)
    match options.verb:
        case "up":
            return await _up(options, disks, state)
        case "status":
            return await _status(options, disks, state)
        case "down":
            return await _down(options, disks)
        case "release":
            return await _release(options, disks, state)
        case _:
            return await _check(options, disks)


def _paths(options: argparse.Namespace) -> config.Paths:
    if options.state is not None:
        return config.Paths(state=options.state)
    return config.load(options.config).paths if options.config.exists() else config.Paths()


async def _up(options: argparse.Namespace, disks: tuple[Disk, ...], state: Path) -> int:
    await host.appear([disk.device for disk in disks], options.wait)
    code = 0
    done: list[dict[str, Any]] = []
    for disk in disks:
        try:
            result = await host.bring_up(disk, state, dry_run=options.dry_run)
        except RemusError as error:  # one bad disk must not keep the guests of all others from starting
            code = code or error.exit_code
            done.append({"name": disk.name, "action": "failed", "error": error.as_dict()})
            _complain(error, options.json)
            continue
        done.append({"name": disk.name, "action": result.action, "note": result.note})
    stray = await _strays(disks)
    if options.json:
        print(json.dumps({"disks": done, "strays": stray, "changed": any(_changes(one) for one in done)}))
        return code
    for one in done:
        if one["action"] != "failed":
            print(f"{one['name']}: {_word(one['action'], options.dry_run)}{', ' + one['note'] if one['note'] else ''}")
    for name in stray:
        print(f"{name}: not in {options.disks}; remus-disks down {name} takes it away")
    if not disks:
        print(f"No disks in {options.disks}.")
    return code


async def _strays(disks: tuple[Disk, ...]) -> list[str]:
    """For a report: what keeps dmsetup from answering was said for each disk, and a host without disks need not have it."""
    try:
        return await host.strays(disks)
    except RemusError:
        return []


def _changes(one: dict[str, Any]) -> bool:
    return one["action"] in {"made", "changed"}


def _word(action: str, dry_run: bool) -> str:
    if action == "none":
        return "nothing to do"
    return f"would be {action}" if dry_run else action


async def _status(options: argparse.Namespace, disks: tuple[Disk, ...], state: Path) -> int:
    rows = []
    for disk in disks:
        row: dict[str, Any] = {
            "name": disk.name, "domain": disk.domain, "vdev": disk.vdev, "device": str(disk.device),
            "metadata": str(disk.metadata), "journal": str(disk.journal),
        }  # fmt: skip
        try:
            seen = await host.look(disk, state)
        except RemusError as error:
            row |= {"target": None, "right": False, "error": error.as_dict()}
        else:
            row |= {
                "target": seen.target, "wanted": seen.wanted, "right": seen.same_content, "size": seen.size,
                "mapped": seen.mapped, "legs": seen.legs, "users": seen.users, "backup": seen.backup,
            }  # fmt: skip
        rows.append(row)
    stray = await _strays(disks)
    if options.json:
        print(json.dumps({"disks": rows, "strays": stray}))
    else:
        print(_table(rows) if rows else f"No disks in {options.disks}.")
        for name in stray:
            print(f"{name}: not in {options.disks}")
    return 0


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [("NAME", "TARGET", "SIZE", "LEGS", "USERS", "DEVICE", "")]
    for row in rows:
        note = row["error"]["message"] if "error" in row else "" if row["right"] else f"should be {row['wanted']}"
        lines.append(
            (row["name"], row["target"] or "none", str(row.get("size", "?")), row.get("legs") or "-",
             str(row.get("users", "?")), row["device"], note)
        )  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


async def _down(options: argparse.Namespace, disks: tuple[Disk, ...]) -> int:
    known = [disk.name for disk in disks] + await host.strays(disks)
    wrong = [name for name in options.names if name not in known]
    if wrong:
        raise ConfigError(
            f"not a disk's mapper device: {', '.join(wrong)}",
            hint=f"known are {', '.join(known) or 'none'}; remus-disks status shows them",
        )
    code = 0
    taken: list[str] = []
    for name in options.names or await _existing(known):
        try:
            await host.take_down(name)
        except RemusError as error:
            code = code or error.exit_code
            _complain(error, options.json)
            continue
        taken.append(name)
    print(
        json.dumps({"removed": taken})
        if options.json
        else "\n".join(f"{name}: removed" for name in taken) or "Nothing removed."
    )
    return code


async def _release(options: argparse.Namespace, disks: tuple[Disk, ...], state: Path) -> int:
    # Imported here: numpy takes longer to load than what every boot waits for takes to run.
    from remus_agent.adapters.disk import release  # noqa: PLC0415

    groups = group_config.of_file(options.config)
    known = {disk.name: disk for disk in disks}
    wrong = [name for name in options.names if name not in known]
    if wrong:
        raise ConfigError(
            f"not a disk of {options.disks}: {', '.join(wrong)}", hint=f"it has {', '.join(known) or 'none'}"
        )
    code = 0
    done: list[dict[str, Any]] = []
    copies: list[Releasable] = []
    for name in dict.fromkeys(options.names):
        try:
            found = await release.find(known[name], state, groups.of_guest(known[name].domain))
        except RemusError as error:
            code = code or error.exit_code
            done.append({"name": name, "action": "failed", "error": error.as_dict()})
            _complain(error, options.json)
            continue
        if found is None:
            done.append({"name": name, "action": "none", "note": "it is this host's own disk"})
        else:
            copies.append(found)
    if copies and not options.yes and not options.dry_run:
        _confirm("\n".join([*(_describe(copy) for copy in copies), DANGER]))
    for copy in copies:
        note = _describe(copy)
        try:
            if not options.dry_run:
                problem = await release.release(copy, state)
                note = f"CONTENT IS NOT WHOLE: {problem}" if problem else f"leads to {copy.disk.device}"
        except RemusError as error:
            code = code or error.exit_code
            done.append({"name": copy.disk.name, "action": "failed", "error": error.as_dict()})
            _complain(error, options.json)
            continue
        done.append({"name": copy.disk.name, "action": "released", "note": note})
    if options.json:
        print(json.dumps({"disks": done}))
        return code
    for one in done:
        if one["action"] != "failed":
            print(f"{one['name']}: {_word(one['action'], options.dry_run)}, {one['note']}")
    return code


def _describe(copy: Releasable) -> str:
    commit = copy.committed
    when = "nothing of it was committed here" if commit is None else f"last commit: epoch {commit.epoch}"
    return f"{copy.disk.name} on {copy.disk.device}: {when}{f', session {commit.session}' if commit else ''}"


def _confirm(question: str) -> None:
    """Ask on the terminal. Raises RefusedError unless the answer is yes, ConfigError when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise ConfigError("this needs a confirmation, and standard input is not a terminal", hint="add --yes")
    print(f"{question}\nContinue? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RefusedError("not confirmed", operation="release a disk", left="nothing was changed")


async def _existing(names: list[str]) -> list[str]:
    return [name for name in names if await mapper.exists(name)]


async def _check(options: argparse.Namespace, disks: tuple[Disk, ...]) -> int:
    found = await asyncio.to_thread(host.problems, disks)
    if found:
        raise ConfigError(
            f"{options.disks} is not usable here:"
            + "".join(f"\n{number}. {one}" for number, one in enumerate(found, 1)),
            left="nothing was changed",
            hint="correct remus_guests in the inventory, or the devices of this host",
        )
    print(json.dumps({"disks": len(disks)}) if options.json else f"{len(disks)} disks, all usable.")
    return 0


def _complain(error: RemusError, as_json: bool) -> None:
    facts = error.as_dict()
    text = json.dumps({"error": facts}) if as_json else render.error(facts, "remus-disks")
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
