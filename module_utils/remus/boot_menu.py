# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What GRUB starts when nobody chooses, by the grub.cfg that Debian's update-grub writes. Pure."""

from __future__ import annotations

import re

ENTRY = re.compile(r"^(\s*)(menuentry|submenu) (['\"])(.*?)\3.*\{\s*$")
XEN = re.compile(r"^\s*(multiboot2?|module2?|xen_hypervisor)\s+\S*/xen[^/\s]*\s")


def entries(text):
    """The top of the menu, in order: (title, does it start Xen?)."""
    found = []
    for line in text.splitlines():
        begun = ENTRY.match(line)
        if begun and not begun.group(1):
            found.append([begun.group(4), False])
        elif found and not line.startswith("}"):
            found[-1][1] = found[-1][1] or XEN.match(line) is not None
    return [(title, xen) for title, xen in found]


def default_of(text):
    """Title or number that the menu names as default: the last word, behind a choice for one boot alone."""
    named = re.findall(r'^\s*set default="(.*?)"\s*$', text, re.MULTILINE)
    return named[-1] if named else "0"


def starts(text):
    """C(entry), the title of what is started, and C(xen), does that start Xen? Both are None where it cannot be told."""
    menu = entries(text)
    name = default_of(text)
    chosen = [entry for entry in menu if entry[0] == name]
    if not chosen and name.isdigit() and int(name) < len(menu):
        chosen = [menu[int(name)]]
    return {"entry": chosen[0][0], "xen": chosen[0][1]} if chosen else {"entry": None, "xen": None}
