"""No run passes in silence without Xen's checker, and only what needs the checker fetches it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import xen_checker

ROOT = Path(__file__).parents[2]


def test_without_the_checker_a_test_fails_unless_it_is_left_out_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(xen_checker, "candidates", lambda: [tmp_path / "verify-stream-v2"])
    monkeypatch.delenv(xen_checker.LEFT_OUT, raising=False)
    with pytest.raises(pytest.fail.Exception, match="`make verifier` fetches it"):
        xen_checker.find()
    monkeypatch.setenv(xen_checker.LEFT_OUT, "1")
    with pytest.raises(pytest.skip.Exception, match="left out"):
        xen_checker.find()
    (tmp_path / "verify-stream-v2").touch()
    assert xen_checker.find() == tmp_path / "verify-stream-v2"


@pytest.mark.parametrize(
    ("target", "fetches"),
    [("demo", False), ("setup", False), ("lab-up", False), ("unit", True), ("check", True), ("test", True)],
)
def test_only_targets_that_run_its_tests_fetch_the_checker(target: str, *, fetches: bool) -> None:
    would_run = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "tools/setup.sh" in would_run
    assert ("tools/fetch_verifier.sh" in would_run) == fetches
    assert "verif" not in (ROOT / "tools" / "setup.sh").read_text()
