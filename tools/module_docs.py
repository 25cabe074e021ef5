"""Write docs/modules/*.md from what `ansible-doc` says of the modules of library/.

python tools/module_docs.py [--check]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "modules"
MARKUP = re.compile(r"\b([BCEIMOPV]|RV)\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
"""Ansible's own markup of documentation, as far as the modules use it."""


def ask(root: Path = ROOT) -> dict[str, Any]:
    """{module: what ansible-doc says}. Raises SystemExit with its words when it refuses one of them."""
    names = sorted(path.stem for path in (root / "library").glob("*.py"))
    program = Path(sys.executable).with_name("ansible-doc")
    done = subprocess.run(
        [str(program), "--json", "--type", "module", "--module-path", str(root / "library"), *names],
        cwd=root,
        env=os.environ | {"ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"ansible-doc failed:\n{done.stderr or done.stdout}")
    said: dict[str, Any] = json.loads(done.stdout)
    if missing := sorted(set(names) - set(said)):
        raise SystemExit(f"ansible-doc says nothing of {', '.join(missing)}:\n{done.stderr}")
    return said


def words(text: object) -> str:
    """Prose in Markdown: paragraphs of a list joined, markup as code, no line breaks."""
    joined = " ".join(str(part) for part in text) if isinstance(text, list) else str(text)
    return " ".join(MARKUP.sub(r"`\2`", joined).replace("|", "\\|").split())


def value(default: object) -> str:
    """A default as YAML would have it on one line, or nothing."""
    return "" if default is None else f"`{json.dumps(default)}`"


def kind(spec: dict[str, Any]) -> str:
    """The type of an option or of a returned value."""
    return f"{spec.get('type', 'str')} of {spec['elements']}" if spec.get("elements") else str(spec.get("type", "str"))


def option_rows(options: dict[str, Any], above: str = "") -> list[str]:
    """Rows of the table of options; those inside of others follow with their path."""
    rows = []
    for name, spec in options.items():
        path = f"{above}{name}"
        default = "**required**" if spec.get("required") else value(spec.get("default"))
        choices = f" One of {', '.join(f'`{choice}`' for choice in spec['choices'])}." if spec.get("choices") else ""
        rows.append(f"| `{path}` | {kind(spec)} | {default} | {words(spec['description'])}{choices} |")
        rows += option_rows(spec.get("suboptions") or {}, f"{path}.")
    return rows


def return_rows(values: dict[str, Any], above: str = "") -> list[str]:
    """Rows of the table of returned values."""
    rows = []
    for name, spec in values.items():
        path = f"{above}{name}"
        when = "" if above else words(spec.get("returned", ""))
        rows.append(f"| `{path}` | {kind(spec)} | {when} | {words(spec['description'])} |")
        rows += return_rows(spec.get("contains") or {}, f"{path}.")
    return rows


def page(name: str, said: dict[str, Any]) -> str:
    """One module's page."""
    doc = said["doc"]
    lines = [
        f"# {name}",
        "",
        f"<!-- Written by `make docs` from library/{name}.py. -->",
        "",
        f"{words(doc['short_description'])}.",
        "",
    ]
    for paragraph in doc["description"]:
        lines += [words(paragraph), ""]
    if doc.get("requirements"):
        lines += [f"Needs {words('; '.join(doc['requirements']))}.", ""]
    support = {key: attribute["support"] for key, attribute in (doc.get("attributes") or {}).items()}
    lines += [f"Check mode: {support['check_mode']}. Diff mode: {support['diff_mode']}.", ""]
    lines += ["## Options", ""]
    rows = option_rows(doc.get("options") or {})
    lines += ["| option | type | default | |", "| --- | --- | --- | --- |", *rows, ""] if rows else ["None.", ""]
    lines += ["## Examples", "", "```yaml", said["examples"].strip(), "```", ""]
    lines += ["## Returned values", ""]
    rows = return_rows(said.get("return") or {})
    lines += ["| value | type | when | |", "| --- | --- | --- | --- |", *rows, ""] if rows else ["None.", ""]
    others = [entry["module"] for entry in doc.get("seealso") or [] if "module" in entry]
    if others:
        lines += [f"See also {', '.join(f'[{other}]({other}.md)' for other in others)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def pages(said: dict[str, Any]) -> dict[str, str]:
    """{file name: content} of the whole folder."""
    found = {f"{name}.md": page(name, of) for name, of in sorted(said.items())}
    index = ["# Modules", "", "<!-- Written by `make docs`. -->", ""]
    index += [
        "What the playbooks and roles call on hosts and on the controller. `ansible-doc NAME` says the same.",
        "",
    ]
    index += ["| module | |", "| --- | --- |"]
    index += [f"| [{name}]({name}.md) | {words(of['doc']['short_description'])} |" for name, of in sorted(said.items())]
    found["README.md"] = "\n".join(index) + "\n"
    return found


def differences(wanted: dict[str, str], folder: Path = PAGES) -> list[str]:
    """Names of pages that are missing, are too many, or say something else than the modules."""
    present = {path.name: path.read_text() for path in folder.glob("*.md")}
    return sorted(name for name in present.keys() | wanted.keys() if present.get(name) != wanted.get(name))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write the pages of the modules")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page differs")
    options = parser.parse_args()
    wanted = pages(ask())
    different = differences(wanted)
    if options.check:
        sys.stdout.write("".join(f"docs/modules/{name} differs: run `make docs`\n" for name in different))
        return 1 if different else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in different:
        if name in wanted:
            (PAGES / name).write_text(wanted[name])
        else:
            (PAGES / name).unlink()
    sys.stdout.write(f"docs/modules: {len(wanted)} pages, {len(different)} of them written or removed\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
