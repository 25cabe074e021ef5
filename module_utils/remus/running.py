# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Which releases processes of this host run, whatever the links lead to."""

from __future__ import annotations

import os
from pathlib import Path


def release_of(prefix, path):
    """The release that a path leads into, or None."""
    try:
        inside = Path(path).relative_to(prefix).parts
    except ValueError:
        return None
    return inside[0] if len(inside) > 1 else None


def interpreter_of(process):
    """The path that a process was started with: its interpreter's, for a script. Empty for a part of the kernel. process: a
    folder of /proc. Raises OSError where it has ended."""
    return os.fsdecode((process / "cmdline").read_bytes().split(b"\0")[0])


def mapped_by(process):
    """Paths that a process has in its memory, compiled modules for instance; OSError where it has ended."""
    lines = os.fsdecode((process / "maps").read_bytes()).splitlines()
    return {words[5] for words in (line.split(None, 5) for line in lines) if len(words) == 6}


def in_use(prefix, proc="/proc"):
    """Releases that a process was started from, or has files of in its memory."""
    paths = set()
    for process in Path(proc).iterdir():
        if process.name.isdigit():
            try:
                paths |= {interpreter_of(process)} | mapped_by(process)
            except OSError:
                continue  # it has ended, or nobody but root may look, who alone removes releases
    real = os.path.realpath(prefix)  # what is mapped has its name without links
    return {release_of(folder, path) for folder in (prefix, real) for path in paths} - {None}
