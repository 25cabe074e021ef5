"""Every command that the documents name is one that there is: its program, playbook, target, options and variables.

Whether it does what they say is shown elsewhere; here nothing is run.
"""

from __future__ import annotations

import argparse
import contextlib
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
from host_views import FULL

from remus_agent import disks
from remus_agent.cli import arguments
from remus_agent.observe import metrics

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


def check_options(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> tuple[str, ...]:
    """Follow subcommands, and look for every option. What the last subcommand is given."""
    known = set(parser._option_string_actions)
    given: tuple[str, ...] = ()
    for number, word in enumerate(words[1:], start=2):
        below = subcommands(parser)
        if below and word in below:
            parser = below[word]
            given = words[number:]
            known |= set(parser._option_string_actions)
        elif word.startswith("-") and word != "-":
            assert word.partition("=")[0] in known, f"{word} of {' '.join(words)}"
        elif below and not word.isupper():
            assert parser.prog == words[0] and word in ("json", "yaml"), f"no command {word}: {' '.join(words)}"
    return given


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
def test_remusctl(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    given = check_options(arguments.parser(), words)
    if given and "..." not in given:  # a command by its name alone is only named
        with contextlib.suppress(SystemExit):
            arguments.parser().parse_args(words[1:])
        assert "arguments are required" not in capsys.readouterr().err


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


def script_of(words: tuple[str, ...]) -> str | None:
    """The file of this tree that a command runs."""
    if words[:2] == ("python", "-m"):
        return f"{words[2].replace('.', '/')}.py"
    script = words[1] if words[0] == "python" and len(words) > 1 else words[0]
    return script if re.match(r"(tools|tests|roles)/.*\.(py|sh)$", script) else None


@cache
def options_of_scripts() -> set[str]:
    """Of all of them: some take a part of theirs from a module beside them."""
    paths = [path for name in ("tests", "roles") for path in (ROOT / name).glob("**/*.py")]
    return {found for path in paths for found in re.findall(r'add_argument\(\s*"(--[\w-]+)"', path.read_text())}


def test_scripts_and_their_options_are_there() -> None:
    looked_at = 0
    for name, command, words in FOUND:
        script = script_of(words)
        if script is not None:
            text = (ROOT / script).read_text()
            for option in (word for word in words[1:] if word.startswith("--")):
                assert option in text or option in options_of_scripts(), f"{name}: {option} of {command}"
                looked_at += 1
        if words[0] == "pytest":
            assert all((ROOT / word).exists() for word in words if word.startswith("tests/")), f"{name}: {command}"
    assert looked_at > 5


def options_below(parser: argparse.ArgumentParser) -> set[str]:
    """Of a command line and all its commands."""
    return set(parser._option_string_actions).union(*map(options_below, subcommands(parser).values()))


OF_OTHERS = {"--check", "--destroy", "--diff", "--docker", "--limit", "--save-domain", "--tags"}
"""Options of Ansible, molecule and Xen that sentences name."""


def test_options_that_sentences_name_are_there() -> None:
    known = options_of_scripts() | options_below(arguments.parser()) | options_below(disks._parser()) | OF_OTHERS
    known |= set(re.findall(r"--[\w-]+", (ROOT / "tools/setup.sh").read_text()))
    for name, command, words in FOUND:
        for word in words if words[0].startswith("--") else ():
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{name}: {command}"


@pytest.mark.parametrize(
    "words",
    [words for name, _, words in FOUND if name == "docs/remusctl.md" and words[0] in subcommands(arguments.parser())],
)
def test_commands_of_remusctl_without_its_name(words: tuple[str, ...]) -> None:
    """As its own document lists them."""
    check_options(arguments.parser(), ("remusctl", *words))


def test_every_command_of_remusctl_is_listed() -> None:
    table = (ROOT / "docs/remusctl.md").read_text().partition("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    assert set(subcommands(arguments.parser())) == {name for cell in cells for name in re.findall(r"`([\w-]+)", cell)}


@pytest.mark.parametrize(
    "words", [words for _, _, words in FOUND if re.fullmatch(r"(playbooks/)?\w+\.yml", words[0]) and len(words) > 1]
)
def test_playbooks_that_sentences_name(words: tuple[str, ...]) -> None:
    test_playbooks_and_their_variables(("ansible-playbook", f"playbooks/{Path(words[0]).name}", *words[1:]))


@cache
def without_comments() -> str:
    """What reads the variables of an inventory."""
    paths = [path for name in ("playbooks", "roles") for path in ROOT.glob(f"{name}/**/*.yml")]
    return re.sub(r"^ *#.*$", "", "\n".join(path.read_text() for path in paths), flags=re.MULTILINE)


def test_variables_of_the_example_are_read() -> None:
    """Those too that stand there behind a #."""
    texts = [path.read_text() for path in (ROOT / "inventories/example").rglob("*.yml")]
    found = {name for text in texts for name in re.findall(r"^ *(?:# *)?((?:remus|xen_host)_\w+):", text, re.MULTILINE)}
    assert {"remus_witness_address", "xen_host_reboot", "remus_guests"} <= found
    assert [name for name in sorted(found) if not re.search(rf"\b{name}\b", without_comments())] == []


METRICS = {family.name for family in metrics.families(FULL)}


def test_variables_that_the_documents_name_are_read() -> None:
    """Where they stand in a sentence; roles, modules and metrics have such names as well."""
    others = {path.stem for path in ROOT.glob("library/*.py")} | {path.name for path in ROOT.glob("roles/*")}
    for path in DOCUMENTS:
        for text in re.findall(r"`([^`]+)`", BLOCK.sub("", path.read_text())):
            for name in re.findall(r"(?<![\w/])(?:remus|xen_host|xen_lab)_[a-z0-9_]+", text):
                if name.removesuffix("_total") not in METRICS | others | {"remus_agent"}:
                    assert re.search(rf"\b{name}\b", without_comments()), f"{path.name}: nobody reads {name}"


def test_playbooks_that_messages_send_people_to_are_there() -> None:
    """In what the agent, modules, roles and playbooks say."""
    texts = [*ROOT.glob("library/*.py"), *ROOT.glob("module_utils/**/*.py"), *ROOT.glob("remus_agent/**/*.py")]
    texts += [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/**/*.yml"), *DOCUMENTS]
    for path in texts:
        for name in re.findall(r"\bplaybooks/(\w+)\.yml", path.read_text()):
            assert name in PLAYBOOKS, f"{path}: {name}"


def test_messages_give_no_command_without_an_inventory() -> None:
    """Ansible would take the lab's. They name the playbook, and what to give it."""
    texts = [path for name in ("library", "module_utils", "remus_agent") for path in ROOT.glob(f"{name}/**/*.py")]
    texts += [*ROOT.glob("roles/remus_drill/files/**/*.py"), *ROOT.glob("roles/**/*.yml")]
    texts += [path for path in ROOT.glob("playbooks/**/*.yml") if path.stem not in ("lab", "bench")]
    for path in texts:
        assert not re.findall(r"ansible-playbook (?!-i )\S+\.yml", path.read_text()), path


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
