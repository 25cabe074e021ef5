"""The report of a drill: its facts, its page, its JUnit, and how to get to a protected guest."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from drill import figures, junit, main, page, record, report, scales
from drill_story import BEGIN, Story, final, killed, left_silent, taken_over

PROGRAM = Path(__file__).resolve().parents[3] / "roles/remus_drill/files/remus_drill.py"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Strict(HTMLParser):
    """Fails on a tag that is not closed, or closed in another order; remembers what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetches: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetches += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.fetches += [tag] if tag in ("script", "iframe", "object", "link") else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Strict:
    """A page, checked."""
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def xml(text: str) -> ET.Element:
    """Our own output, parsed."""
    return ET.fromstring(text)  # noqa: S314


def plots(page_text: str) -> list[ET.Element]:
    """All of a page's."""
    return [xml(svg) for svg in re.findall(r"<svg.*?</svg>", page_text, re.DOTALL)]


STORIES = {"killed": killed, "taken-over": taken_over, "left-silent": left_silent}


@pytest.fixture(scope="module", params=STORIES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(name of the story, its folder with a report)."""
    folder = STORIES[request.param](tmp_path_factory.mktemp("report") / "drill")
    main.write(folder)
    return request.param, folder


def test_the_page_is_well_formed_and_needs_nothing_else(written: tuple[str, Path]) -> None:
    text = (written[1] / "report.html").read_text()
    parser = read(text)
    assert parser.fetches == []
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    for name in ("latency", "pause", "pages", "bytes", "held"):
        assert f'id="{name}-wide"' in text
        assert f'id="{name}-narrow"' in text
    assert len(plots(text)) == 10


def test_everything_lies_within_its_plot(written: tuple[str, Path]) -> None:
    for tree in plots((written[1] / "report.html").read_text()):
        width, height = (float(word) for word in tree.attrib["viewBox"].split()[2:])
        for one in tree.iter("rect"):
            assert 0 <= float(one.attrib["x"]) <= width
            assert float(one.attrib["x"]) + float(one.attrib["width"]) <= width + 1
            assert 0 <= float(one.attrib["y"]) <= height
        for one in tree.iter("text"):
            assert 0 <= float(one.attrib["x"]) <= width
            assert 0 <= float(one.attrib["y"]) <= height


def test_what_the_report_says(written: tuple[str, Path]) -> None:
    name, folder = written
    said = json.loads((folder / "report.json").read_text())
    words = " ".join(read((folder / "report.html").read_text()).text)
    verdicts = {one["name"]: one["verdict"] for one in said["guarantees"]}
    if name == "killed":
        assert (said["ok"], said["moves"], verdicts["G4"]) == (True, [], "kept")
        assert "redis1 is protected again, and runs on alpha." in words
        assert said["unanswered"] == 0
    elif name == "taken-over":
        assert [(one["from"], one["to"]) for one in said["moves"]] == [("alpha", "beta")]
        assert (said["ok"], verdicts["G2"], verdicts["G3"], verdicts["G6"]) == (True, "kept", "kept", "kept")
        assert "alpha: the host has booted anew" in words
    else:
        assert (said["ok"], said["violated"], said["protected"]) == (False, [], False)
        assert said["next"][0].startswith("wait: its agent on alpha")
        assert "How to get there:" in words
    before, during, after = said["figures"]
    assert [part["name"] for part in said["figures"]] == list(figures.PARTS)
    assert during["longest_wait"] is None or during["longest_wait"] > 20 * before["longest_wait"]
    assert before["pause_median"] == pytest.approx(0.004, rel=0.5)
    assert after["asked"] > 0


def test_what_is_in_it_cannot_become_markup(tmp_path: Path) -> None:
    story = Story(tmp_path / "drill")
    story.plan["client"] = {
        "command": "curl <script>alert(1)</script>",
        "address": None,
        "interval": 1,
        "grace": 1,
        "kind": "echo",
    }
    story.final = final(problem="<b>broken</b>")
    folder = story.write()
    main.write(folder)
    text = (folder / "report.html").read_text()
    assert read(text).fetches == []
    assert "<script>" not in text
    assert "&lt;b&gt;broken&lt;/b&gt;" in text


def test_junit_has_a_case_for_each_guarantee_and_the_end(written: tuple[str, Path]) -> None:
    name, folder = written
    suite = xml((folder / "junit.xml").read_text()).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert [case.attrib["name"][:2] for case in cases[:6]] == ["G1", "G2", "G3", "G4", "G5", "G6"]
    assert int(suite.attrib["tests"]) == len(cases) == 8
    failed = [case.attrib["name"] for case in cases if case.find("failure") is not None]
    assert failed == (["protected at the end"] if name == "left-silent" else [])
    assert suite.attrib["failures"] == str(len(failed))


def test_violations_and_what_is_not_undone_fail_in_junit() -> None:
    said = {
        "fault": "link_cut", "guest": "web1", "time": "2026-01-02T03:04:05Z", "problem": "", "protected": True, "missing": [],
        "next": [], "guarantees": [{"name": "G1", "title": "t", "verdict": "violated", "evidence": "seen <here>"}],
        "undone": [{"host": "beta", "error": "it does not answer"}],
    }  # fmt: skip
    suite = xml(junit.text(said)).find("testsuite")
    assert suite is not None
    assert suite.attrib["failures"] == "2"
    assert [one.attrib["message"] for one in suite.iter("failure")] == ["seen <here>", "beta: it does not answer"]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"owner": "alpha", "protected": True}, []),
        ({"owner": "alpha", "status": {"alpha": {"state": "silent"}}}, ["wait: its agent on alpha", "--problems"]),
        (
            {"owner": "beta", "status": {"beta": {"state": "active"}}},
            ["playbooks/reprotect.yml -e remus_domain=redis1"],
        ),
        ({"owner": "beta", "status": {"beta": {"state": "solo"}}}, ["playbooks/reprotect.yml -e remus_domain=redis1"]),
        ({"owner": None, "holder": "beta"}, ["run the copy of beta: failover.yml -e remus_domain=redis1"]),
        ({"owner": None, "holder": None}, ["playbooks/status.yml"]),
    ],
)
def test_the_way_to_a_protected_guest(tmp_path: Path, end: dict[str, object], words: list[str]) -> None:
    story = Story(tmp_path / "drill")
    story.final = {"guest": end, "problem": "", "undone": [], "missing": []}
    steps = report.next_steps(record.read(story.write()))
    assert len(steps) == len(words)
    assert all(word in step for word, step in zip(words, steps, strict=True))


def test_what_is_not_undone_comes_first(tmp_path: Path) -> None:
    story = Story(tmp_path / "drill")
    story.final["undone"] = [{"host": "beta", "error": "no answer", "by_hand": "sh /run/remus-drill/undo.sh"}]
    run = record.read(story.write())
    assert report.next_steps(run) == ["undo the fault on beta: run 'sh /run/remus-drill/undo.sh' there as root"]
    assert report.summary(run)["ok"] is False


def test_a_host_that_is_off_is_switched_on_before_anything_else(tmp_path: Path) -> None:
    folder = taken_over(tmp_path / "drill")
    power = {"host": "alpha", "by": "beta", "was_off": True, "by_hand": "fence on"}
    undone = [{"host": "alpha", "error": "no answer", "by_hand": "sh /run/remus-drill/undo.sh"}]
    failed = final(
        "beta", protected=False, powers=[power | {"was_off": False, "error": "status says off"}], undone=undone
    )
    failed["guest"]["status"] = {"beta": {"state": "active"}}
    (folder / "final.json").write_text(json.dumps(failed) + "\n")
    said = main.write(folder)
    assert said["ok"] is False
    assert said["next"] == [
        "power alpha on (status says off) with this on beta as root: fence on",
        "unless alpha had to boot, undo the fault on alpha: run 'sh /run/remus-drill/undo.sh' there as root",
        "protect it where it runs now: playbooks/reprotect.yml -e remus_domain=redis1",
    ]
    assert "beta switched it on" not in (folder / "report.html").read_text()
    failed["guest"] |= {"owner": None, "holder": "beta"}
    (folder / "final.json").write_text(json.dumps(failed) + "\n")
    steps = main.write(folder)["next"]
    assert "failover.yml" in steps[1], "a copy runs while the old host is off"
    booted = [{"host": "alpha", "undone": "boot", "by_hand": "sh /run/remus-drill/undo.sh"}]
    for more in ({}, {"error": "status says nothing"}):
        end = final("beta", powers=[power | more], undone=booted)
        (folder / "final.json").write_text(json.dumps(end) + "\n")
        said = main.write(folder)
        assert (said["ok"], said["next"]) == (True, []), "its agent has the guest's copy, so it is on"
    assert "alpha was off; beta switched it on" in (folder / "report.html").read_text()


def test_a_host_that_was_not_reset_is_told(tmp_path: Path) -> None:
    folder = taken_over(tmp_path / "drill")
    assert report.summary(record.read(folder))["problem"] == ""
    undone = [{"host": "alpha", "undone": "timer", "by_hand": "sh /run/remus-drill/undo.sh"}]
    (folder / "final.json").write_text(json.dumps(final("beta") | {"undone": undone}) + "\n")
    said = report.summary(record.read(folder))
    assert said["problem"] == "alpha was to be reset, and has not booted anew: nothing was broken"
    assert said["ok"] is False
    by_fence = taken_over(tmp_path / "fenced", sites=[{"host": "alpha", "fence": "beta"}])
    (by_fence / "final.json").write_text(json.dumps(final("beta") | {"undone": undone}) + "\n")
    assert report.summary(record.read(by_fence))["problem"] == "", "who switches another host off does not boot"


def test_epochs_are_told_in_the_controllers_time_and_once(tmp_path: Path) -> None:
    run = record.read(taken_over(tmp_path / "drill"))
    assert {epoch.host for epoch in run.epochs} == {"alpha", "beta"}
    assert min(epoch.at for epoch in run.epochs) == pytest.approx(BEGIN, abs=0.2)
    assert len({epoch.epoch for epoch in run.epochs}) == len(run.epochs)


def test_a_drill_that_ended_early_has_a_report_as_well(tmp_path: Path) -> None:
    folder = killed(tmp_path / "drill")
    for name in ("client.jsonl", "looks-alpha.jsonl", "looks-beta.jsonl", "final.json"):
        (folder / name).unlink()
    (folder / "phases.jsonl").write_text("")
    said = main.write(folder)
    assert said["ok"] is False
    assert said["next"] == ["ask where it stands: playbooks/status.yml"]
    read((folder / "report.html").read_text())


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, PROGRAM, "report", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "plan.json" in done.stderr
    (tmp_path / "plan.json").write_text("{}")
    done = subprocess.run([sys.executable, PROGRAM, "report", tmp_path], capture_output=True, text=True, check=False)
    assert f"{tmp_path} is no folder of a drill" in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_for_people() -> None:
    assert [figures.seconds(value) for value in (None, 0.0021, 0.25, 12.34)] == ["–", "2.1 ms", "250 ms", "12.3 s"]
    assert [figures.amount(value, "B") for value in (0, 1023, 4096, 5 * 2**20, 3 * 2**30)] == [
        "0 B", "1023 B", "4 KiB", "5 MiB", "3.0 GiB",
    ]  # fmt: skip
    assert figures.amount(1234567) == "1 234 567"
    assert figures.quantile([], 0.5) is None
    assert figures.quantile([3.0, 1.0, 2.0], 0.5) == 2.0


@pytest.mark.parametrize(("low", "high", "most"), [(0, 80, 10), (0, 0.0123, 4), (0, 7, 3), (3, 3, 4), (0, 99999, 4)])
def test_axes_have_round_numbers_and_not_too_many(low: float, high: float, most: int) -> None:
    ticks = scales.nice(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low <= tick <= high for tick in ticks)
    assert len(ticks) == 1 or len({round(b - a, 9) for a, b in itertools.pairwise(ticks)}) == 1


def test_values_beyond_a_scale_lie_at_its_ends() -> None:
    scale = scales.Scale(0.001, 10, 100, 0, logarithmic=True)
    assert (scale(0.0001), scale(0.001), scale(0.1), scale(100)) == (100, 100, 50, 0)


def test_the_page_names_what_was_expected() -> None:
    assert set(page.BADGES.values()) == {"kept", "violated", "none"}
