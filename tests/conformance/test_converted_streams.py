"""Xen's own checker, verify-stream-v2, accepts what `remusctl stream convert` makes of every epoch and type of guest.

It cannot read streams with checkpoints itself: converting is what makes them readable for Xen's tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from streams import builder, samples
from streams.builder import Epoch
from xen_checker import find, modules_of

from remus_agent.cli import main as cli

EPOCHS = [Epoch({1: 1, 2: 0}, zeros=[4]), Epoch({2: 7}, zeros=[1, 9], without=[5]), Epoch()]
WITH_MODEL = [Epoch({1: 1}, emulator=b"QEVM one"), Epoch({1: 2}, zeros=[3], emulator=b"QEVM two")]
STREAMS = {
    "pvh": builder.checkpointed(EPOCHS),
    "pvh_ended": builder.checkpointed(EPOCHS) + builder.end(Epoch({8: 8})),
    "hvm": builder.checkpointed(WITH_MODEL, builder.preamble(kind="hvm")),
    "pv": samples.pv_plain(),
}
CASES = [("pvh", 1), ("pvh", 2), ("pvh", None), ("pvh_ended", None), ("hvm", 1), ("hvm", None), ("pv", None)]


@pytest.mark.parametrize(("name", "epoch"), CASES)
def test_a_converted_stream_is_accepted(tmp_path: Path, name: str, epoch: int | None) -> None:
    checker = find()
    (tmp_path / "saved").write_bytes(STREAMS[name])
    chosen = [] if epoch is None else ["--epoch", str(epoch)]
    assert cli.main(["stream", "convert", str(tmp_path / "saved"), str(tmp_path / "plain"), *chosen]) == 0
    done = subprocess.run(
        [sys.executable, str(checker), "-f", "xl", "-i", str(tmp_path / "plain")],
        env={**os.environ, "PYTHONPATH": str(modules_of(checker))},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
