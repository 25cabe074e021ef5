"""Every command that the documents name is one that there is: its program, playbook, target, options and variables.

Whether it does what they say is shown elsewhere; here nothing is run.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.splitter import parse_kv, unquote

from remus_agent import disks
from remus_agent.cli import arguments

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("roles/*/README.md"))]
UNITS = {"etcd", "remus-agent", "remus-bridge", "remus-disks", "remus-supervisor"}
PLAYBOOKS = {path.stem for path in ROOT.glob("playbooks/*.yml")}


BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[str]:
    """What stands as code: lines of blocks, without what explains them, and code within sentences."""
    for language, block in BLOCK.findall(text):
        for line in block.splitlines() if language in ("", "sh") else ():
            yield re.split(r" {3,}", line.strip().removeprefix("$ "))[0]
    for inline in re.findall(r"`([^`]+)`", BLOCK.sub("", text)):
        yield " ".join(inline.split())


def words_of(command: str) -> list[str]:
    """Its words; optional ones count like the others."""
    try:
        words = shlex.split(re.sub(r"[\[\]]", " ", command).replace("|", " "), comments=True)
    except ValueError:  # prose with an apostrophe
        return []
    while len(words) > 1 and re.fullmatch(r"\w+=\S*", words[0]):
        words.pop(0)
    return words


FOUND = sorted(
    {
        (path.relative_to(ROOT).as_posix(), command, tuple(words))
        for path in DOCUMENTS
        for command in commands(path.read_text())
        if (words := words_of(command))
    }
)


def of(*programs: str) -> list[Any]:
    """The commands of some programs."""
    return [
        pytest.param(words, id=f"{name}: {command}")
        for name, command, words in FOUND
        if words[0] in programs or Path(words[0]).name in programs
    ]


@cache
def read_variables() -> str:
    """Everything in which a variable is asked for."""
    paths = [path for name in ("playbooks", "roles", "inventories") for path in ROOT.glob(f"{name}/**/*.yml")]
    return "\n".join(path.read_text() for path in paths)


@cache
def tags() -> set[str]:
    """All tags of tasks."""
    found = re.findall(r"tags: \[(.*?)\]", read_variables())
    return {tag.strip() for words in found for tag in words.split(",")}


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Of a command line, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def check_options(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> None:
    """Follow subcommands, and look for every option."""
    known = set(parser._option_string_actions)
    for word in words[1:]:
        below = subcommands(parser)
        if below and word in below:
            parser = below[word]
            known |= set(parser._option_string_actions)
        elif word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"{word} of {' '.join(words)}"
        elif below and not word.isupper():
            assert parser.prog == words[0] and word in ("json", "yaml"), f"no command {word}: {' '.join(words)}"


@pytest.mark.parametrize("words", of("ansible-playbook"))
def test_playbooks_and_their_variables(words: tuple[str, ...]) -> None:
    names = [word for word in words[1:] if re.fullmatch(r"(?:playbooks/)?\w+\.yml|remus\.xen\.\w+", word)]
    assert len(names) == 1, words
    if names[0].startswith("remus.xen."):
        assert names[0].removeprefix("remus.xen.") in PLAYBOOKS
    else:
        assert (ROOT / names[0]).is_file()
    for option, value in itertools.pairwise(words):
        if option == "-i":
            assert value == "inventories/site" or (ROOT / value).is_dir(), "a site's own, or one that is here"
        if option == "--tags":
            assert value in tags()
        if option == "-e":
            name, _, given = value.partition("=")
            assert re.search(rf"\b{name}\b", read_variables()), f"nobody reads {name}"
            assert parse_kv(value) == {name: unquote(given)}, (
                "of words that are not quoted for it, Ansible takes the first"
            )


def test_variables_that_are_named_by_themselves() -> None:
    """`-e remus_upgrade_back=true` in a sentence."""
    for name, _, words in FOUND:
        if words[0] == "-e" and len(words) > 1:
            variable = words[1].partition("=")[0]
            assert re.search(rf"\b{variable}\b", read_variables()), f"{name}: nobody reads {variable}"


@pytest.mark.parametrize("words", of("make"))
def test_targets(words: tuple[str, ...]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in words[1:]:
        name = word.partition("=")[0]
        if "=" in word:
            assert f"{name} ?=" in text or f"$({name})" in text, word
        else:
            assert re.search(rf"^{name}:.*## ", text, re.MULTILINE), word


@pytest.mark.parametrize("words", of("remusctl"))
def test_remusctl(words: tuple[str, ...]) -> None:
    check_options(arguments.parser(), words)


@pytest.mark.parametrize("words", of("remus-disks"))
def test_remus_disks(words: tuple[str, ...]) -> None:
    check_options(disks._parser(), words)


@pytest.mark.parametrize("words", of("labctl"))
def test_labctl(words: tuple[str, ...]) -> None:
    sys.path.insert(0, str(ROOT / "roles/xen_lab/files"))
    from lab import cli

    verb = next(iter(words[1:]), "")
    assert not verb or verb in subcommands(cli.parser()), words


@pytest.mark.parametrize("words", of("molecule"))
def test_scenarios(words: tuple[str, ...]) -> None:
    assert (ROOT / "molecule" / words[words.index("-s") + 1] / "molecule.yml").is_file()


@pytest.mark.parametrize("words", of("ansible-doc"))
def test_documented_roles(words: tuple[str, ...]) -> None:
    if "role" in words:
        assert (ROOT / "roles" / words[-1] / "meta/argument_specs.yml").is_file()


@pytest.mark.parametrize("words", of("journalctl", "systemctl"))
def test_units(words: tuple[str, ...]) -> None:
    named = [words[number + 1] for number, word in enumerate(words) if word == "-u"]
    named += list(words[2:3]) if words[0] == "systemctl" else []
    assert set(named) <= UNITS


def test_scripts_are_there() -> None:
    for name, command, words in FOUND:
        script = words[1] if words[0] == "python" and len(words) > 1 and words[1] != "-m" else words[0]
        if re.match(r"(tools|tests|roles)/.*\.(py|sh)$", script):
            assert (ROOT / script).is_file(), f"{name}: {command}"
        if words[:2] == ("python", "-m"):
            assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file(), f"{name}: {command}"


def test_playbooks_that_messages_send_people_to_are_there() -> None:
    """In what the agent, modules, roles and playbooks say."""
    texts = [*ROOT.glob("library/*.py"), *ROOT.glob("module_utils/**/*.py"), *ROOT.glob("remus_agent/**/*.py")]
    texts += [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/**/*.yml"), *DOCUMENTS]
    for path in texts:
        for name in re.findall(r"\bplaybooks/(\w+)\.yml", path.read_text()):
            assert name in PLAYBOOKS, f"{path}: {name}"


def test_the_inventory_of_a_site_is_always_named() -> None:
    """Without -i Ansible takes the one of ansible.cfg, which is the lab's."""
    assert "inventory = inventories/lab" in (ROOT / "ansible.cfg").read_text()
    for name, command, words in FOUND:
        if words[0] == "ansible-playbook" and len(words) > 1 and name != "docs/architecture.md":  # which draws it
            assert "-i" in words, f"{name}: {command}"


def test_the_check_finds_what_is_wrong() -> None:
    assert words_of("REMUS_X=1 make check # all") == ["make", "check"]
    assert words_of("remusctl x [--force]") == ["remusctl", "x", "--force"]
    with pytest.raises(AssertionError):
        check_options(arguments.parser(), ("remusctl", "status", "NAME", "--fast"))
    with pytest.raises(AssertionError):
        check_options(arguments.parser(), ("remusctl", "explode"))
    assert len(FOUND) > 200
