"""Writes the shell completion of remusctl for bash, from its own parser, so that no host needs a library for it.

python tools/shell_completion.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = ROOT / "roles" / "remus_agent" / "files" / "remusctl.bash"
_FILES: Final = frozenset({"FILE", "PATH", "DIR", "OUTPUT", "A", "B"})
_PEERS: Final = frozenset({"peer", "host", "fenced_host", "to"})
_HEAD: Final = """\
# shellcheck shell=bash
# Completion of remusctl for bash. Written by tools/shell_completion.py from the parser of remusctl: do not edit.

_remusctl_offer() {
    # $1: what kind of word is wanted, $2: its beginning
    local IFS=$'\\n' words
    case "$1" in
        domain)
            words="$(remusctl list 2>/dev/null | awk 'NR > 1 { print $1 }')"
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
            ;;
        peer)
            words="$(remusctl agent 2>/dev/null | awk 'peers { print $1 } $1 == "PEER" { peers = 1 }')"
            mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
            ;;
        file)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$2")
            ;;
        words:*) mapfile -t COMPREPLY < <(compgen -W "$(tr ' ' '\\n' <<<"${1#words:}")" -- "$2") ;;
    esac
}

_remusctl_command() {
    # $1: the command that is being completed: sets what it takes
    options="" valued="" arguments=()
    case "$1" in
"""
_MIDDLE: Final = """\
    esac
}

_remusctl_value() {
    # $1: a command and one of its options: prints what kind of word follows
    case "$1" in
"""
_TAIL: Final = """\
        *) echo none ;;
    esac
}

_remusctl() {
    local current="${COMP_WORDS[COMP_CWORD]}" command="" options valued word taken=0 i
    local -a arguments
    COMPREPLY=()
    _remusctl_command ""
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ " $valued " == *" $word "* ]]; then
            ((i + 1 == COMP_CWORD)) && { _remusctl_offer "$(_remusctl_value "$command $word")" "$current"; return; }
            ((i++))
        elif [[ $word != -* ]]; then
            if [[ ${arguments[0]:-} == words:* && -z ${command#stream} ]]; then
                command="${command:+$command }$word"
                _remusctl_command "$command"
                taken=0
            else
                ((taken++))
            fi
        fi
    done
    if [[ $current == -* ]]; then
        _remusctl_offer "words:$options" "$current"
    else
        _remusctl_offer "${arguments[taken]:-none}" "$current"
    fi
}

complete -F _remusctl remusctl
"""


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser and those of its commands, each with its name; the first one has none."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from commands(inner, f"{name} {word}".strip())


def kind(action: argparse.Action) -> str:
    """What a word is that this argument takes."""
    if isinstance(action, argparse._SubParsersAction) or action.choices is not None:
        return "words:" + " ".join(map(str, action.choices or ()))
    if action.dest == "domain":
        return "domain"
    if action.dest in _PEERS:
        return "peer"
    return "file" if action.type is Path or action.metavar in _FILES else "none"


def completion(parser: argparse.ArgumentParser) -> str:
    """The script."""
    cases, values = [], []
    for name, one in commands(parser):
        flags = [action for action in one._actions if action.option_strings]
        valued = [action for action in flags if action.nargs != 0]
        options = [text for action in flags for text in action.option_strings]
        takes = [text for action in valued for text in action.option_strings]
        arguments = [f'"{kind(action)}"' for action in one._actions if not action.option_strings]
        cases.append(
            f'        "{name}")\n            options="{" ".join(options)}"\n            valued="{" ".join(takes)}"\n'
            f"            arguments=({' '.join(arguments)})\n            ;;\n"
        )
        for action in valued:
            words = " | ".join(f'"{name} {text}"' for text in action.option_strings)
            if kind(action) != "none":
                values.append(f'        {words}) echo "{kind(action)}" ;;\n')
    return _HEAD + "".join(cases) + _MIDDLE + "".join(values) + _TAIL


def main() -> None:
    """Write it."""
    sys.path.insert(0, str(ROOT))
    from remus_agent.cli.arguments import parser  # noqa: PLC0415

    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(completion(parser()))
    print(TARGET.relative_to(ROOT))


if __name__ == "__main__":
    main()
