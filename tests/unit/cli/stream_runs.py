"""Streams for `remusctl stream`, and ways to run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from streams import builder
from streams.builder import Epoch

from remus_agent.cli import main as cli
from remus_agent.protocol.stream import writer

EPOCHS = [Epoch({1: 1, 2: 0}), Epoch({2: 2}, zeros=[1], rip=0x2000), Epoch({7: 7}, nsec=9)]
CHECKPOINTED = builder.checkpointed(EPOCHS)
PLAIN = builder.plain(EPOCHS[:1])
DAMAGED = CHECKPOINTED + writer.end_of_libxc()


def run(*arguments: str | Path) -> int:
    return cli.main(["stream", *map(str, arguments)])


def facts(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def remusctl(*arguments: str | Path, **more: Any) -> subprocess.Popen[bytes]:
    """A process that heeds signals also where the tests run in the background of a shell, which ignores SIGINT there."""
    heed = ["env", "--default-signal=INT,HUP,TERM"]
    command = [*heed, sys.executable, "-m", "remus_agent.cli.main", "stream", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
