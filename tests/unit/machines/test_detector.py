"""The detector: both signals, its own freezes, and how it waits after attempts that led to nothing."""

from __future__ import annotations

from remus_agent.machines.detector import Detector


def listen(detector: Detector, until: float, *, channel: bool = False, path: bool = False) -> Detector:
    """Tick on, with a signal at each tick or not."""
    now = detector.at
    while now < until:
        now += detector.tick
        detector = detector.ticked(now).heard(channel=now if channel else None, path=now if path else None)
    return detector


def started() -> Detector:
    return Detector.started(detect=10, tick=1, now=100)


def test_silence_on_both_signals_makes_a_suspicion_and_on_one_does_not() -> None:
    assert not listen(started(), 109).suspects
    assert listen(started(), 110).suspects
    assert not listen(started(), 200, channel=True).suspects
    assert not listen(started(), 200, path=True).suspects


def test_hearing_the_primary_on_either_ends_the_suspicion() -> None:
    suspicious = listen(started(), 115)
    assert not suspicious.heard(path=114.5).suspects
    assert not suspicious.heard(channel=114.5).suspects
    assert suspicious.heard(channel=90, path=95).suspects, "older news is no news"


def test_a_detector_that_was_frozen_begins_anew() -> None:
    thawed = listen(started(), 105).ticked(150)
    assert thawed.silent_for == 0
    assert not listen(thawed, 159).suspects
    assert listen(thawed, 160).suspects


def test_a_clock_that_goes_back_begins_anew() -> None:
    assert listen(started(), 112).ticked(50).silent_for == 0


def test_each_attempt_that_fails_makes_the_next_one_wait_longer() -> None:
    detector = listen(started(), 110)
    waits = []
    for _ in range(8):
        detector = detector.failed(detector.at)
        waits.append(detector.not_before - detector.at)
        assert not detector.suspects
        detector = listen(detector, detector.not_before)
        assert detector.suspects
    assert waits == [10, 20, 40, 80, 160, 320, 320, 320]


def test_an_attempt_that_the_witness_did_not_answer_makes_nobody_wait() -> None:
    detector = listen(started(), 110).failed(110).unanswered()
    assert (detector.failures, detector.suspects) == (0, True)
    twice = listen(listen(started(), 110).failed(110), 120).failed(120)
    assert twice.unanswered().failures == 1
    assert not detector.heard(path=109).silent


def test_a_primary_that_was_heard_again_is_suspected_as_soon_as_the_first_time() -> None:
    detector = listen(listen(started(), 110).failed(110), 120)
    detector = listen(detector, 125, channel=True)
    assert detector.failures == 0
    assert listen(detector, 135).suspects


def test_it_says_when_the_witness_may_be_asked() -> None:
    detector = listen(started().ticked(102).heard(channel=101, path=101.5), 111)
    assert detector.due == 111.5
    assert not detector.ticked(111.4).suspects
    assert detector.ticked(111.5).suspects
    assert detector.ticked(111.5).failed(111.5).due == 121.5
