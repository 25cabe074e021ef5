"""An agent says which build it is: two of one version are two releases."""

from __future__ import annotations

from pathlib import Path

from remus_agent.adapters import release
from remus_agent.services.agent import AgentService
from tests.model.loop import run
from tests.model.pair import Pair, on


def test_it_is_named_after_the_folder_that_the_module_has_completed(tmp_path: Path) -> None:
    folder = tmp_path / "0.1.0-1f2e3d4c5b"
    folder.mkdir()
    assert release.running(folder) is None, "not whole, or no release at all"
    (folder / release.MARK).touch()
    assert release.running(folder) == "0.1.0-1f2e3d4c5b"


def test_the_agent_says_it() -> None:
    async def story() -> None:
        pair = Pair()
        other: AgentService = on(pair.alpha)
        assert (await other.agent())["release"] is None
        other._release = "0.1.0-1f2e3d4c5b"
        assert (await other.agent())["release"] == "0.1.0-1f2e3d4c5b"

    run(story())


def test_the_mark_is_the_module_s() -> None:
    source = (Path(__file__).parents[3] / "module_utils" / "remus" / "unpacking.py").read_text()
    assert f'MARK = "{release.MARK}"' in source
