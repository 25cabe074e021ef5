"""Make `ansible.module_utils.remus` importable in this virtual environment.

ansible-lint's rule `args` runs each module to learn its options. Our modules import `ansible.module_utils.remus`, which
only Ansible's own loader finds; without this link the rule gives up on every file that uses one of them, in silence.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "module_utils" / "remus"


def link(source: Path = SOURCE) -> str:
    """Create or repair the link beside ansible's own module utilities; say what was done."""
    found = importlib.util.find_spec("ansible.module_utils")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("ansible-core is not installed for this Python; install requirements/dev.txt first")
    target = Path(found.submodule_search_locations[0]) / "remus"
    if target.is_symlink():
        if target.resolve() == source:
            return f"{target} is linked already"
        target.unlink()
    elif target.exists():
        raise SystemExit(f"{target} exists and is not a link; remove it first")
    target.symlink_to(source, target_is_directory=True)
    return f"{target} -> {source}"


if __name__ == "__main__":
    sys.stdout.write(link() + "\n")
