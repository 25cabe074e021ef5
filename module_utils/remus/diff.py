# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""One comparison that decides both `changed` and what `--diff` shows, so that they cannot disagree."""

from __future__ import annotations


class Comparison:
    """Named differences between what is and what shall be."""

    def __init__(self, header=None):
        self._header = header
        self._before = {}
        self._after = {}

    def add(self, name, before, after):
        """Note a value; it counts as a difference only where the two differ."""
        if before != after:
            self._before[name] = before
            self._after[name] = after

    @property
    def changed(self):
        """Is there any difference?"""
        return self._before != self._after

    @property
    def names(self):
        """Names of what differs."""
        return sorted(self._after)

    def as_diff(self):
        """The `diff` value of a module's result."""
        diff = {"before": dict(self._before), "after": dict(self._after)}
        if self._header:
            diff["before_header"] = f"{self._header} (now)"
            diff["after_header"] = f"{self._header} (then)"
        return diff
