"""Releases of an agent that only talks: enough for the role remus_agent to install, start and ask it, on this machine.

Its systemd is a script. A unit is called after its host, `alpha-agent`; starting it runs `current/bin/remus-agent` of that host,
unless there is a file `alpha/refuses`.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tests.modules.conftest import ROOT, load

sys.path.insert(0, str(ROOT / "tools"))
import build_wheelhouse

PYTHON = "{}.{}".format(*sys.version_info[:2])

AGENT = '''"""Answers on the control socket of a host: python -m … HOST FOLDER."""
import hashlib, json, os, pathlib, socket, sys

VERSION = {version!r}
BUILD = {build!r} or pathlib.Path(sys.prefix).name
STARTS = {starts!r}
SPOILS = {spoils!r}
FELLS = {fells!r}


def answer(host, folder, method, params):
    """From guests.json, by host. One that is protected is `seeding` after a start, until its status was asked for twice."""
    statuses = json.loads((folder / "guests.json").read_text())[host]
    asked = folder / host / "asked"
    for status in statuses:
        if status["state"] == "protected" and int(asked.read_text()) < 2:
            status["state"] = "seeding"
    if method == "agent":
        return {{"host": host, "version": VERSION, "release": BUILD, "xen_version": "4.20", "peers": {{}}, "tls": None,
                "watchdog": None, "configuration": json.loads((folder / host / "read").read_text())}}
    if method == "list":
        return {{"domains": statuses}}
    if method == "status":
        asked.write_text(str(int(asked.read_text()) + 1))
        return [status for status in statuses if status["domain"] == params["domain"]][0]
    raise SystemExit("the upgrade asked for " + method)


def main():
    """Entry point of remus-agent."""
    host, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if not STARTS:
        raise SystemExit("this one never starts")
    if host == SPOILS:
        guests = json.loads((folder / "guests.json").read_text())
        guests[host] = [status | {{"state": "silent"}} for status in guests[host]]
        (folder / "guests.json").write_text(json.dumps(guests))
    if host in FELLS:
        (folder / ("gone-" + FELLS[host])).touch()
    (folder / host / "asked").write_text("0")
    toml = folder / host / "etc" / "agent.toml"
    (folder / host / "read").write_text(json.dumps({{str(toml): hashlib.sha256(toml.read_bytes()).hexdigest()}}))
    with (folder / "log").open("a") as log:
        print("start", host, VERSION, file=log)
    path = folder / host / "run" / "agent.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(4)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                result = answer(host, folder, request["method"], request["params"])
                connection.sendall(json.dumps({{"id": request["id"], "result": result}}).encode() + b"\\n")


def check():
    """Entry point of remusctl: every configuration is right but one with a word that this version does not know."""
    return 2 if {refuses!r} in pathlib.Path(sys.argv[-1]).read_text() else 0
'''

SYSTEMCTL = '''#!{python}
"""systemd for the units HOST-agent."""
import os, pathlib, signal, subprocess, sys, time

folder = pathlib.Path({folder!r})
words = [word for word in sys.argv[1:] if word != "--no-reload"]
host = words[-1].removesuffix(".service").removesuffix("-agent")
pid = folder / host / "pid"


def running():
    """Of the unit, or 0."""
    try:
        number = int(pid.read_text())
        state = pathlib.Path(f"/proc/{{number}}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return 0 if state == "Z" else number
    except (OSError, ValueError):
        return 0


if "--property=MainPID" in words:
    print(running())
elif "show" in words:
    print("LoadState=loaded\\nActiveState=" + ("active" if running() else "inactive") + "\\nUnitFileState=enabled")
elif "is-enabled" in words:
    print("enabled")
elif words[0] in ("start", "restart"):
    if running():
        os.kill(running(), signal.SIGKILL)
    (folder / host / "run" / "agent.sock").unlink(missing_ok=True)
    if (folder / host / "refuses").exists():
        raise SystemExit("it has no memory left")
    program = folder / host / "opt" / "current" / "bin" / "remus-agent"
    with (folder / host / "output").open("ab") as output:
        started = subprocess.Popen([str(program), host, str(folder)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True)
    pid.write_text(str(started.pid))
'''


def archive(
    path: Path,
    version: str,
    *,
    starts: bool = True,
    spoils: str = "",
    refuses: str = "\0",
    protocol: int = 2,
    build: str = "",
    fells: Mapping[str, str] | None = None,
) -> Path:
    """A release's tar, with the one wheel that it needs. spoils: the host whose guests are silent for good once it has run there.
    refuses: what must not stand in its configuration. build: what it says that it is, if not what it is. fells: which host
    is gone once it has started on another one, or on that one."""
    files = {
        "remus_agent/__init__.py": "",
        "remus_agent/stand_in.py": AGENT.format(
            version=version, starts=starts, spoils=spoils, refuses=refuses, build=build, fells=fells or {}
        ),
        "remus_agent/protocol/replication/messages.py": f"PROTOCOL: Final = {protocol}\n",
        **{
            f"remus_agent/units/{unit}.service": f"# of {version}\n"
            for unit in ("alpha-agent", "beta-agent", "remus-disks")
        },
        "remus_agent-0.dist-info/entry_points.txt": (
            "[console_scripts]\nremus-agent = remus_agent.stand_in:main\nremusctl = remus_agent.stand_in:check\n"
        ),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("remus_agent-0-py3-none-any.whl")
        member.size = len(content.getvalue())
        tar.addfile(member, io.BytesIO(content.getvalue()))
    return path


def install(folder: Path, host: str, release: str) -> None:
    """A release that is installed and in use on a host from before; its name begins with its version."""
    module: ModuleType = load("remus_release")
    prefix = folder / host / "opt"
    prefix.mkdir(parents=True, exist_ok=True)
    tar = archive(folder / "old.tar", release.partition("-")[0])
    module.install(
        {"release": release, "prefix": str(prefix), "project": "remus_agent", "archive": str(tar)},
        str(prefix / release),
    )
    (prefix / "current").unlink(missing_ok=True)
    (prefix / "current").symlink_to(release)


def offer(folder: Path, **how: object) -> str:
    """Let the builder find a stand-in where it would have put the release of this tree; returns that release's name."""
    folder.mkdir(exist_ok=True)
    pins = (ROOT / "requirements" / "agent.txt").read_bytes()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    release = f"{version}-{build_wheelhouse.digest(ROOT, pins, PYTHON)[:10]}"
    tar = archive(folder / f"{release}-py{PYTHON}.tar", version, **how)  # type: ignore[arg-type]
    tar.with_suffix(".json").write_text(json.dumps({"release": release, "archive": str(tar)}))
    return release


def systemctl(folder: Path) -> Path:
    """The folder to put first into PATH."""
    program = folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    return program.parent
