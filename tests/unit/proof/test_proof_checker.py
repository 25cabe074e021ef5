"""The checker on recorded histories, good ones and one for each thing that can go wrong."""

import json

import pytest
from proof.checker import as_text, check, main
from proof.history import HistoryError, read

COUNTERS = 2


class Tape:
    """A history as a client writes it, with a guest that counts; faults are made by changing the guest in
    between."""

    def __init__(self):
        self.lines = []
        self.time = 100.0
        self.batch = 0
        self.entry = 0
        self.guest = {"c0": 0, "c1": 0}
        self.journal = []
        self.write("start", run="r1", guest="10.77.0.100:6379", client="10.77.0.1:5000", counters=COUNTERS)

    def write(self, event, **facts):
        self.lines.append(json.dumps({"event": event, "mono": self.time, "wall": 1e9 + self.time, **facts}) + "\n")

    def carry_out(self, op):
        if op.startswith("c"):
            self.guest[op] += 1
            return self.guest[op]
        self.journal.append(int(op[1:]))
        return len(self.journal)

    def send(self):
        self.batch += 1
        self.entry += 1
        ops = ["c0", "c1", f"j{self.entry}"]
        self.write("sent", batch=self.batch, ops=ops)
        return ops

    def batch_done(self, latency=0.1):
        ops = self.send()
        self.time += latency
        for index, op in enumerate(ops):
            self.write("ack", batch=self.batch, index=index, op=op, value=self.carry_out(op))

    def batches(self, count, latency=0.1):
        for _ in range(count):
            self.batch_done(latency)
        return self

    def snapshot(self):
        return dict(self.guest), list(self.journal)

    def restore(self, snapshot):
        self.guest, self.journal = dict(snapshot[0]), list(snapshot[1])

    def finish(self, run="r1", via="same"):
        self.write("final", via=via, run=run, counters=self.guest, journal=self.journal)
        self.write("end")
        return self

    def report(self, **options):
        return check(read(self.lines), **options)


def test_a_quiet_run_is_kept():
    report = Tape().batches(20).finish().report()
    assert (report.verdict, report.reasons, report.exit_code) == ("kept", [], 0)
    assert (report.acknowledged, report.batches, report.outstanding) == (60, 20, 0)
    assert report.connection == "kept"
    assert report.latency_ms["p50"] == pytest.approx(100)
    assert "KEPT" in as_text(report)


def test_a_stall_is_a_gap_and_nothing_else():
    tape = Tape().batches(5)
    tape.batch_done(latency=42.0)
    report = tape.batches(5).finish().report()
    assert report.verdict == "kept"
    assert report.longest_gap.seconds == pytest.approx(42)
    assert report.longest_gap.after == pytest.approx(0.5)
    assert report.latency_ms["max"] == pytest.approx(42000)


def test_a_dropped_epoch_that_nobody_saw_is_no_duplicate():
    tape = Tape().batches(5)
    committed = tape.snapshot()
    ops = tape.send()
    for op in ops:
        tape.carry_out(op)  # in the epoch that dies with the primary, its replies held
    tape.restore(committed)
    for index, op in enumerate(ops):  # TCP sends the request once more, to the restored copy
        tape.write("ack", batch=tape.batch, index=index, op=op, value=tape.carry_out(op))
    report = tape.batches(3).finish().report()
    assert report.verdict == "kept"


def test_a_reply_that_was_let_out_too_early_is_lost():
    tape = Tape().batches(5)
    committed = tape.snapshot()
    tape.batches(2)
    tape.restore(committed)
    report = tape.batches(4).finish().report()
    assert report.verdict == "red"
    assert report.lost.count > 0
    assert "went back" in report.lost.examples[0]
    assert report.exit_code == 1


def test_a_loss_shows_in_the_final_state_alone():
    tape = Tape().batches(5)
    committed = tape.snapshot()
    tape.batches(2)
    tape.write("broken", error="no reply for 60 s")
    tape.restore(committed)
    report = tape.finish(via="new").report()
    assert report.lost.count == 2 + 2 + 2  # two counters by two, two entries
    assert report.connection == "broken"


def test_a_lost_list_entry_is_named():
    tape = Tape().batches(5)
    tape.journal.remove(3)
    report = tape.finish().report()
    assert report.lost.examples == ["list: entry 3 was acknowledged and is missing"]


def test_a_request_carried_out_twice_jumps():
    tape = Tape().batches(5)
    tape.carry_out("c1")
    report = tape.batches(2).finish().report()
    assert (report.verdict, report.duplicated.count, report.lost.count) == ("red", 1, 0)


def test_a_double_list_entry_is_named():
    tape = Tape().batches(5)
    tape.journal.append(4)
    report = tape.finish().report()
    assert report.duplicated.examples == ["list: entry 4 is there 2 times"]


def test_more_than_was_outstanding_is_a_duplicate():
    tape = Tape().batches(5)
    tape.carry_out("c0")
    report = tape.finish().report()
    assert (report.verdict, report.duplicated.count) == ("red", 1)


@pytest.mark.parametrize("carried_out", [0, 1, 3])
def test_what_is_outstanding_may_have_happened_or_not(carried_out):
    tape = Tape().batches(5)
    for op in tape.send()[:carried_out]:
        tape.carry_out(op)
    tape.write("broken", error="ConnectionResetError: [Errno 104]")
    report = tape.finish(via="new").report()
    assert (report.lost.count, report.duplicated.count, report.outstanding) == (0, 0, 3)
    assert (report.verdict, report.connection) == ("red", "broken")


def test_replies_that_never_came_are_a_stall():
    tape = Tape().batches(5)
    tape.send()
    tape.write("stopping", reason="deadline")
    tape.write("unfinished", outstanding=6)
    report = tape.finish(via="new").report()
    assert (report.verdict, report.connection) == ("red", "stalled")


def test_an_entry_that_was_never_sent_is_foreign():
    tape = Tape().batches(5)
    tape.journal.append(77)
    assert tape.finish().report().foreign.examples == ["list: entry 77 was never sent"]


def test_a_guest_with_the_data_of_another_run_is_foreign():
    assert "run r0" in Tape().batches(5).finish(run="r0").report().foreign.examples[0]


def test_an_error_reply_is_red():
    tape = Tape().batches(3)
    tape.send()
    tape.write("refused", batch=tape.batch, index=0, op="c0", error="OOM command not allowed")
    assert tape.finish().report().refused.count == 1


def test_a_mark_needs_load_on_both_sides():
    tape = Tape().batches(10)
    middle = 1e9 + tape.time
    tape.time += 1
    tape.batches(10).finish()
    report = tape.report(marks={"kill": middle + 0.5})
    assert report.marks["kill"] == {"acknowledged_before": 30, "sent_and_acknowledged_after": 30}
    assert report.verdict == "kept"
    assert tape.report(marks={"kill": 1e9 + tape.time + 5}).verdict == "red"


def test_the_state_read_by_the_checker_counts_more_than_the_clients():
    tape = Tape().batches(5).finish()
    history = read(tape.lines)
    later = read(Tape().batches(4).finish().lines).final
    assert check(history).verdict == "kept"
    assert check(history, later).verdict == "red"


@pytest.mark.parametrize("finish", [True, False])
def test_nothing_acknowledged_or_no_final_state_is_not_judged(finish):
    tape = Tape()
    report = (tape.finish() if finish else tape.batches(3)).report()
    assert (report.verdict, report.exit_code) == ("unjudged", 2)


def test_a_killed_clients_last_line_is_left_out():
    tape = Tape().batches(3).finish()
    tape.lines[-1] = tape.lines[-1][:10]
    history = read(tape.lines)
    assert not history.complete
    assert check(history).verdict == "kept"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["[]\n"],
        ["not json\n"],
        ['{"event":"ack"}\n'],
        ["start", "start"],
        ["start", '{"event":"nonsense","mono":1,"wall":1}\n'],
        ["start", '{"event":"ack","batch":9,"index":0,"op":"c0","value":1,"mono":1,"wall":1}\n'],
        ["start", '{"event":"sent","batch":9}\n'],
    ],
)
def test_what_no_client_wrote_is_refused(lines):
    start = Tape().lines[0]
    with pytest.raises(HistoryError):
        read([start if line == "start" else line for line in lines])


def test_the_command_writes_json_and_ends_with_the_verdict(tmp_path, capsys):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(Tape().batches(5).finish().lines))
    tape = Tape().batches(5)
    tape.journal.pop()
    bad.write_text("".join(tape.finish().lines))
    assert main([str(good), "--report", str(tmp_path / "proof.json")]) == 0
    assert json.loads((tmp_path / "proof.json").read_text())["verdict"] == "kept"
    assert main([str(bad)]) == 1
    assert "RED: 1 acknowledged and lost" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
