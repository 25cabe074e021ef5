# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a release of wheels: unpacked into a virtual environment beside, tried, and only then given its name."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

MARK = ".complete"
"""File of a release that is whole."""


class ReleaseError(Exception):
    """The release could not be unpacked or does not work; the message says what is left."""


def site_packages(folder):
    """Where the packages of a virtual environment of this Python lie."""
    return str(Path(folder, "lib", "python{}.{}".format(*sys.version_info[:2]), "site-packages"))


def unpack_wheel(stream, name, target):
    """Unpack one wheel; returns the text of its entry_points.txt, or None."""
    points = None
    with zipfile.ZipFile(stream) as wheel:
        for entry in wheel.namelist():
            parts = entry.split("/")
            if entry.startswith("/") or ".." in parts:
                raise ReleaseError(f"{name} names a file outside of itself: {entry}")
            if parts[0].endswith(".data"):
                raise ReleaseError(f"{name} has a folder {parts[0]}, which this installer does not support")
            if len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] == "entry_points.txt":
                points = wheel.read(entry).decode("utf-8")
        wheel.extractall(target)  # noqa: S202 - no name of an entry leads out of it
    return points


def console_scripts(points):
    """[(command, module, function)] of an entry_points.txt."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str
    parser.read_string(points or "")
    if not parser.has_section("console_scripts"):
        return []
    commands = []
    for command, target in parser.items("console_scripts"):
        module, _dummy, function = target.partition(":")
        commands.append((command, module.strip(), function.strip()))
    return commands


def write_command(folder, final, command, module, function):
    """A command of the release, whose first line names the final folder."""
    script = Path(folder, "bin", command)
    script.write_text(
        f"#!{final}/bin/python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n",
        encoding="utf-8",
    )
    script.chmod(0o755)


def run(words, failure):
    """Run a command; a ReleaseError with the text of `failure` and what it said when it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/")
    if done.returncode != 0:
        raise ReleaseError("{}: {}".format(failure, done.stdout.decode("utf-8", "replace")[-2000:]))


def sync_folder(path):
    """Write the names in a folder to its disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(prefix, release):
    """Take a release away: its name at once, because half of one with its mark would count as whole. What a run that is killed
    leaves of it goes with the next one that is installed."""
    beside = Path(prefix, f".{release}.removing")
    shutil.rmtree(beside, ignore_errors=True)
    Path(prefix, release).rename(beside)
    shutil.rmtree(beside)


@contextlib.contextmanager
def alone(prefix):
    """Nobody else unpacks there: what an interrupted run left at work would give its mark to a folder that another fills."""
    handle = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise ReleaseError(
                f"An earlier run still unpacks a release in {prefix}. State left: the release in use is untouched. "
                "Next: run this again in a minute."
            ) from taken
        yield
    finally:
        os.close(handle)


def install(params, folder):
    """Unpack into a folder beside, try it, then rename: a folder with the release's name is complete. Returns seconds by step."""
    with alone(params["prefix"]):
        return unpack(params, folder)


def unpack(params, folder):
    """Install where nobody else does."""
    beside = Path(params["prefix"], ".{}.unpacking".format(params["release"]))
    prefix = Path(params["prefix"])
    # Also of other releases, left by runs that were killed.
    for leftover in (*prefix.glob(".*.unpacking"), *prefix.glob(".*.removing"), folder):
        shutil.rmtree(leftover, ignore_errors=True)
    seconds = {}
    try:
        started = time.monotonic()
        # In a process of its own: the module venv takes the interpreter from how the present process was started.
        run([sys.executable, "-m", "venv", "--symlinks", "--without-pip", str(beside)], "no environment was made")
        seconds["environment"] = round(time.monotonic() - started, 1)
        started = time.monotonic()
        commands = []
        with tarfile.open(params["archive"]) as archive:
            for member in archive:
                if not member.isfile() or not member.name.endswith(".whl"):
                    continue
                points = unpack_wheel(archive.extractfile(member), member.name, site_packages(beside))
                if Path(member.name).name.startswith(params["project"] + "-"):
                    commands = console_scripts(points)
        if not commands:
            raise ReleaseError("the archive has no wheel of {} with commands".format(params["project"]))
        for command, module, function in commands:
            write_command(beside, folder, command, module, function)
        seconds["unpack"] = round(time.monotonic() - started, 1)
        started = time.monotonic()
        modules = ", ".join(sorted({module for dummy, module, dummy2 in commands}))
        run([str(beside / "bin" / "python3"), "-c", f"import {modules}"], "the commands do not import")
        seconds["trial"] = round(time.monotonic() - started, 1)
        started = time.monotonic()
        # A host that loses power may keep a name and lose the content: nothing unwritten lies behind the mark.
        run(["sync", "--file-system", str(beside)], "it could not be written to its disk")
        (beside / MARK).write_text(f"{sys.version.split()[0]}\n", encoding="utf-8")
        beside.rename(folder)
        sync_folder(params["prefix"])
        seconds["sync"] = round(time.monotonic() - started, 1)
    except (OSError, ReleaseError, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError) as failure:
        shutil.rmtree(beside, ignore_errors=True)
        raise ReleaseError(
            "Release {} was not installed: {}. State left: the release in use is untouched.".format(
                params["release"], failure
            )
        ) from failure
    Path(params["archive"]).unlink()
    return seconds
