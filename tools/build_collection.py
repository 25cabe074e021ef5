"""Build the Ansible collection remus.xen from this tree: dist/remus-xen-VERSION.tar.gz, and unpacked below dist/collections.

    python tools/build_collection.py [--output DIST] [--sanity]

In this tree modules are called by their short names and share `ansible.module_utils.remus`, so that it runs without being
installed. In the collection they have full names. What only development needs (the lab, benches, tests) stays out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE, NAME = "remus", "xen"
FULL = f"{NAMESPACE}.{NAME}"
UTILS = f"ansible_collections.{FULL}.plugins.module_utils"
OLDEST_ANSIBLE = "2.19.0"
LEFT_OUT = frozenset({"xen_lab", "lab.yml", "bench.yml", "bench_turn.yml"})
"""Roles and playbooks that are about this tree's own lab."""
SANITY = (
    "action-plugin-docs", "changelog", "compile", "empty-init", "ignores", "line-endings", "no-assert", "no-get-exception",
    "no-illegal-filenames", "no-smart-quotes", "replace-urlopen", "shebang", "shellcheck", "symlinks", "use-argspec-type-path",
    "use-compat-six",
)  # fmt: skip
"""Tests of `ansible-test sanity` that need nothing but ansible-core. The others install packages of their own (ansible-doc,
import, pep8, pylint, runtime-metadata, validate-modules, yamllint) or need PowerShell (pslint)."""
WHOLE = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "docs",
    "inventories/example",
    "remus_agent",
    "requirements/agent.txt",
)
"""Copied as they are. The agent's sources and pins are what the role remus_agent builds its release from."""


def modules(root: Path = ROOT) -> list[str]:
    """Names of all modules."""
    return sorted(path.stem for path in (root / "library").glob("*.py"))


def with_full_names(source: str, names: list[str]) -> str:
    """A module's text with imports of the collection, and full names in its documentation and examples."""
    alternatives = "|".join(names)
    source = source.replace("ansible.module_utils.remus", UTILS)
    source = re.sub(rf"^(\s+- module: )({alternatives})$", rf"\g<1>{FULL}.\2", source, flags=re.MULTILINE)
    return re.sub(rf"^(  )({alternatives}):$", rf"\g<1>{FULL}.\2:", source, flags=re.MULTILINE)


def galaxy(root: Path = ROOT) -> str:
    """galaxy.yml. Its version is the agent's."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return yaml.safe_dump(
        {
            "namespace": NAMESPACE,
            "name": NAME,
            "version": project["version"],
            "readme": "README.md",
            "authors": ["The Remus for Xen authors"],
            "description": project["description"],
            "license": ["Apache-2.0"],
            "tags": ["xen", "high_availability", "replication", "infrastructure"],
            "dependencies": {},
        },
        sort_keys=False,
    )


def copy(source: Path, target: Path) -> None:
    """A file or a folder, without what Python and Ansible leave behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "pki", *LEFT_OUT)
        shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def stage(target: Path, root: Path = ROOT) -> None:
    """The collection's tree; what was there before is replaced."""
    if target.exists():
        shutil.rmtree(target)
    names = modules(root)
    for name in WHOLE:
        copy(root / name, target / name)
    for name in ("roles", "playbooks"):
        copy(root / name, target / name)
    copy(root / "tools" / "build_wheelhouse.py", target / "tools" / "build_wheelhouse.py")
    for path in (root / "library").glob("*.py"):
        where = target / "plugins" / "modules" / path.name
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(with_full_names(path.read_text(), names))
    for path in (root / "module_utils" / "remus").glob("*.py"):
        where = target / "plugins" / "module_utils" / path.name
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(with_full_names(path.read_text(), names))
    (target / "galaxy.yml").write_text(galaxy(root))
    (target / "meta").mkdir()
    (target / "meta" / "runtime.yml").write_text(f'---\nrequires_ansible: ">={OLDEST_ANSIBLE}"\n')


def build(output: Path, root: Path = ROOT) -> tuple[Path, Path]:
    """(archive, staged tree). Raises SystemExit with the words of ansible-galaxy."""
    tree = output / "collections" / "ansible_collections" / NAMESPACE / NAME
    stage(tree, root)
    program = Path(sys.executable).with_name("ansible-galaxy")
    done = subprocess.run(
        [str(program), "collection", "build", "--force", "--output-path", str(output), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    version = yaml.safe_load((tree / "galaxy.yml").read_text())["version"]
    archive = output / f"{NAMESPACE}-{NAME}-{version}.tar.gz"
    if done.returncode != 0 or not archive.is_file():
        raise SystemExit(f"ansible-galaxy collection build failed:\n{done.stdout}{done.stderr}")
    return archive, tree


def sanity(tree: Path) -> int:
    """Exit code of those of ansible-test's checks that can run here. They look at a copy: inside of a work tree of git they would
    see only what git knows."""
    program = Path(sys.executable).with_name("ansible-test")
    version = "{}.{}".format(*sys.version_info[:2])
    with tempfile.TemporaryDirectory(prefix="remus-sanity-") as scratch:
        there = Path(scratch, "ansible_collections", NAMESPACE, NAME)
        shutil.copytree(tree, there)
        tests = [word for name in SANITY for word in ("--test", name)]
        return subprocess.run([str(program), "sanity", "--python", version, *tests], cwd=there, check=False).returncode


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build the Ansible collection")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder for the archive (default: dist)")
    parser.add_argument("--sanity", action="store_true", help="check it as well")
    options = parser.parse_args()
    archive, tree = build(options.output)
    code = sanity(tree) if options.sanity else 0
    sys.stdout.write(f"{archive}\nunpacked: {tree}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
