"""The fuzz target of the NBD codec, briefly: its seeds and some seconds of mutation.

`docs/development.md` says how to run it for longer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parents[2] / "fuzz" / "nbd_requests.py"
SECONDS = 4


def test_a_short_run_of_the_nbd_codec_finds_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TARGET), f"-max_total_time={SECONDS}", "-seed=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*"))
    runs = re.search(r"Done (\d+) runs in", done.stderr)
    assert runs, done.stderr[-3000:]
    assert int(runs[1]) > 300
