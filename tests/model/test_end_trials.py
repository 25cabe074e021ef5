"""Whether a protection can be ended or paused is found out without ending it, and what is ended is what was confirmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from remus_agent.errors import ConfigError, RefusedError
from remus_agent.services.requests import handlers
from tests.model.loop import run
from tests.model.pair import Host, Pair, on, quiet
from tests.model.test_pausing import started, state

PAUSE: Mapping[str, Any] = {"seconds": 60}


def verb(host: Host, name: str) -> Callable[..., Awaitable[Mapping[str, Any]]]:
    """One that a test calls as the control socket does."""
    return lambda **params: handlers(on(host), lambda *_: [])[name]({"domain": "web1", **params}, quiet)


@pytest.mark.parametrize(("name", "more"), [("unprotect", {}), ("unprotect", {"force": True}), ("pause", PAUSE)])
def test_a_trial_says_what_it_would_be_about_and_changes_nothing(name: str, more: Mapping[str, Any]) -> None:
    async def story() -> None:
        pair = await started()
        found = await verb(pair.alpha, name)(dry_run=True, **more)
        assert (found["role"], found["state"]) == ("primary", "protected")
        assert await state(pair.alpha) == "protected"
        assert not pair.alpha.pauses.notes
        without = {key: value for key, value in more.items() if key != "force"}
        with pytest.raises(RefusedError):
            await verb(pair.beta, name)(dry_run=True, **without)
        if more.get("force"):
            assert (await verb(pair.beta, name)(dry_run=True, **more))["role"] == "backup"
        assert on(pair.beta).backup.copy_of("web1") is not None
        assert await state(pair.beta) == "ready"
        await on(pair.alpha).close()

    run(story())


@pytest.mark.parametrize(("name", "more"), [("unprotect", {}), ("pause", PAUSE)])
def test_a_trial_is_refused_as_the_end_itself(name: str, more: Mapping[str, Any]) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.crash_backup()
        refused = []
        for trial in (True, False):
            with pytest.raises(RefusedError, match="the backup can't be asked to discard its copy") as caught:
                await verb(pair.alpha, name)(dry_run=trial, **more)
            refused.append((caught.value.left, caught.value.hint))
        assert refused[0] == refused[1]
        assert await state(pair.alpha) == "silent"

    run(story())


def test_what_is_paused_can_be_paused_longer_and_nothing_else_can() -> None:
    async def story() -> None:
        pair = await started()
        pausing = verb(pair.alpha, "pause")
        await pausing(**PAUSE)
        assert (await pausing(dry_run=True, **PAUSE))["state"] == "paused"
        await verb(pair.alpha, "unprotect")()
        with pytest.raises(RefusedError, match="it is not protected on this host"):
            await pausing(dry_run=True, **PAUSE)
        assert (await verb(pair.alpha, "unprotect")(dry_run=True))["state"] == "unprotected"
        await on(pair.alpha).close()

    run(story())


@pytest.mark.parametrize(("name", "more"), [("unprotect", {}), ("pause", PAUSE)])
@pytest.mark.parametrize("other", [{"role": "backup"}, {"generation": 99}])
def test_what_has_changed_since_it_was_confirmed_is_left_alone(
    name: str, more: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    async def story() -> None:
        pair = await started()
        end = verb(pair.alpha, name)
        found = await end(dry_run=True, **more)
        seen = {"role": found["role"], "generation": found["generation"]}
        with pytest.raises(RefusedError, match=r"by now \(protected\), and what was confirmed was"):
            await end(expected={**seen, **other}, **more)
        assert await state(pair.alpha) == "protected"
        with pytest.raises(ConfigError, match="wrong parameters"):
            await end(expected={**seen, "state": "protected"}, **more)
        await end(expected=seen, **more)
        assert await state(pair.alpha) == ("paused" if name == "pause" else "unprotected")
        await on(pair.alpha).close()

    run(story())
