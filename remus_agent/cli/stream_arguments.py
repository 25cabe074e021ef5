"""The arguments of `remusctl stream`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

EPILOG: Final = (
    "Exit codes: 0 done (verify: the stream is good; diff: no difference), 2 wrong arguments, 3 no such epoch in the"
    " stream, 6 the stream breaks a rule, 13 a file cannot be read or written, 14 the stream ends inside an epoch or"
    " before its first one is complete, 15 the stream ends between epochs, without its END, 16 the streams differ, 130"
    " interrupted. A FILE of - is standard input. -o json prints JSON, -o yaml YAML. No agent is needed but for send, whose other"
    " codes are those of remusctl --help."
)
CONFIG: Final = Path("/etc/remus/agent.toml")
"""Where the configuration is installed; `remus_agent.config` takes long to load."""
Add = Callable[..., argparse.ArgumentParser]


def add(verb: Add, shared: argparse.ArgumentParser) -> None:
    """Add the command and its tools. verb: makes a command; shared: options that every command has."""
    text = "check, show, compare, convert and send saved domains (xl save, xl remus, this agent)"
    tools = verb("stream", text, epilog=EPILOG).add_subparsers(dest="tool", required=True, metavar="TOOL")

    def tool(name: str, text: str) -> argparse.ArgumentParser:
        return tools.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=EPILOG, parents=[shared]
        )

    verify = tool("verify", "check every rule of the format, and digest the whole stream")
    verify.add_argument("file", metavar="FILE")

    inspect = tool("inspect", "show what a stream holds: headers, records, pages, epochs")
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--records", action="store_true", help="show each header and record (-o json: one a line)")
    inspect.add_argument("--epochs", action="store_true", help="show each epoch (-o json: one a line)")

    diff = tool("diff", "show what differs between two streams: pages, registers, parameters, configuration")
    diff.add_argument("file", metavar="A")
    diff.add_argument("other", metavar="B")
    diff.add_argument("--epoch-a", type=_epoch, metavar="N", help="epoch of A (default: last complete)")
    diff.add_argument("--epoch-b", type=_epoch, metavar="N", help="epoch of B (default: last complete)")

    convert = tool("convert", "make a stream with checkpoints a plain one that xl restore accepts")
    convert.add_argument("file", metavar="FILE")
    convert.add_argument(
        "target", metavar="OUTPUT", help="file to write, replaced only when all is done; - is standard output"
    )
    convert.add_argument("--epoch", type=_epoch, metavar="N", help="restore to this epoch (default: last complete)")

    cut = tool("cut", "take the records of one epoch out of a stream, as they stand")
    cut.add_argument("file", metavar="FILE")
    cut.add_argument(
        "target", metavar="OUTPUT", help="file to write, replaced only when all is done; - is standard output"
    )
    cut.add_argument("--epoch", type=_epoch, metavar="N", required=True, help="epoch, from 1 on")

    send = tool("send", "send a stream with checkpoints, as xl remus writes it, to a backup's agent")
    send.add_argument("file", metavar="FILE", nargs="?", default="-", help="the stream (default: standard input)")
    send.add_argument(
        "--to", metavar="PEER", required=True, help="the backup: a peer of this host's agent, or ADDRESS:PORT"
    )
    send.add_argument("--domain", metavar="NAME", help="refuse the stream of any other domain")
    send.add_argument(
        "--banner", action="store_true", help="tell xl remus on standard output that it may send; needs --domain"
    )
    send.add_argument(
        "--json", dest="output", action="store_const", const="json", default=argparse.SUPPRESS, help="same as -o json"
    )
    send.add_argument(
        "--config", metavar="FILE", type=Path, default=CONFIG, help="configuration of this host's agent (%(default)s)"
    )


def _epoch(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("epochs are counted from 1 on")
    return number
