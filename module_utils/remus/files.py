# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are read if they are there, and replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path


def read(path):
    """Content of a file, or None where there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None


def as_bytes(text):
    """Text that was read with `surrogateescape`, byte for byte: a comment in another encoding than UTF-8 stays as it is."""
    return text.encode("utf-8", "surrogateescape")


def readable(text):
    """The same for a person: what is not UTF-8 is replaced."""
    return as_bytes(text).decode("utf-8", "replace")


def beside(path, content, mode):
    """Write the content beside a file that it is to replace; where. All that a full disk refuses, it refuses here."""
    new = Path(f"{path}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(content)
            os.fchmod(target.fileno(), mode)
            target.flush()
            os.fsync(target.fileno())
    except OSError:
        new.unlink()  # half of it, and in some folders every file is read
        raise
    return new


def replace(path, content, mode):
    """Replace a file; whoever reads it finds the old content or the new, and nobody whom its mode keeps out ever reads it."""
    beside(path, content, mode).replace(path)
