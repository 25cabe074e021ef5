"""The client for PostgreSQL against a small server of our own that can be told to misbehave."""

import contextlib
import re
import socket
import struct
import threading
import time

import pytest
from proof import rows
from proof.checker import as_text, check, main
from proof.client import Limits, Load
from proof.history import Recorder, read
from proof.row_client import main as client_main
from proof.row_client import run


def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body


def answer(tag, *values, error=None):
    """The messages of one result with one column."""
    parts = [message(b"T", b"\0\0")] if values else []
    parts += [message(b"D", struct.pack("!Hi", 1, len(value)) + value) for value in (str(v).encode() for v in values)]
    if error:
        parts.append(message(b"E", f"SERROR\0C53100\0M{error}\0\0".encode()))
    else:
        parts.append(message(b"C", tag.encode() + b"\0"))
    return b"".join(parts) + message(b"Z", b"I")


class FakePostgres:
    """Serves the handful of statements the proof uses. drop_after, hang_after: rows until the connection is reset, or falls
    silent; forget: rows that are gone then. skip: a row that is acknowledged and not kept. double: one that is kept twice.
    refuse: one that is refused. spoil: one whose content is changed. slip: answers with another number."""

    def __init__(self, drop_after=None, hang_after=None, forget=0, **faults):
        self.runs, self.rows = [], []
        self.drop_after, self.hang_after, self.forget, self.faults = drop_after, hang_after, forget, faults
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.connections = 0
        self.closing = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.closing.set()
        self.listener.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        # A client may hang up at any time.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as stream:
            (length,) = struct.unpack("!I", stream.read(4))
            stream.read(length - 4)
            connection.sendall(message(b"R", bytes(4)) + message(b"Z", b"I"))
            while head := stream.read(5):
                sql = stream.read(struct.unpack("!I", head[1:])[0] - 4).rstrip(b"\0").decode()
                reply = self.reply(sql)
                count = len(self.rows)
                if self.hang_after is not None and count > self.hang_after:
                    self.lapse()
                    self.hang_after = None
                    self.closing.wait(30)
                    return
                if self.drop_after is not None and count > self.drop_after:
                    self.lapse()
                    self.drop_after = None
                    return
                connection.sendall(reply)

    def lapse(self):
        del self.rows[len(self.rows) - self.forget :]

    def reply(self, sql):
        if found := re.match(r"INSERT INTO proof_runs \(name\) VALUES \('(\w+)'\)$", sql):
            self.runs.append(found[1])
            return answer("INSERT 0 1")
        if found := re.match(r"INSERT INTO proof_rows .* VALUES \('(\w+)', (\d+), '(\w+)'\)", sql):
            return self.insert(found[1], int(found[2]), found[3])
        if sql.startswith("SELECT name"):
            return answer("SELECT 1", self.runs[-1])
        if found := re.match(r"SELECT n FROM proof_rows WHERE run = '(\w+)'", sql):
            return answer("SELECT", *sorted(n for r, n, c in self.rows if r == found[1] and c == rows.content(n)))
        return answer("SET")

    def insert(self, name, number, content):
        if number == self.faults.get("refuse"):
            return answer("", error="could not extend file: No space left on device")
        if number == self.faults.get("spoil"):
            content = "other"
        if number != self.faults.get("skip"):
            self.rows.append((name, number, content))
        if number == self.faults.get("double"):
            self.rows.append((name, number, content))
        return answer("INSERT 0 1", number - 3 if number == self.faults.get("slip") else number)


@pytest.fixture
def postgres(request):
    server = FakePostgres(**getattr(request, "param", {}))
    yield server
    server.close()


def record(postgres, path, limits, stop=lambda: False):
    with path.open("w") as file:
        run(postgres.address, Recorder(file), Load(rate=500), limits, stop)
    with path.open() as file:
        return read(file)


def test_a_run_to_its_deadline_is_kept(postgres, tmp_path):
    history = record(postgres, tmp_path / "h", Limits(run=0.3))
    report = check(history)
    assert (history.stopped, history.complete, history.final.via) == ("deadline", True, "same")
    assert history.batches[2].ops == ("j2",)
    assert [ack.value for ack in history.acks] == list(range(1, len(postgres.rows) + 1))
    assert (report.verdict, report.outstanding, report.longest_gap is None) == ("kept", 0, False)
    assert postgres.connections == 1


def test_a_stop_signal_ends_a_run(postgres, tmp_path):
    until = time.monotonic() + 0.2
    history = record(postgres, tmp_path / "h", Limits(), lambda: time.monotonic() > until)
    assert (history.stopped, check(history).verdict) == ("signal", "kept")


def test_old_rows_do_not_count(postgres, tmp_path):
    record(postgres, tmp_path / "h", Limits(run=0.1))
    assert check(record(postgres, tmp_path / "i", Limits(run=0.1))).verdict == "kept"


@pytest.mark.parametrize(
    ("postgres", "finding", "words"),
    [
        ({"skip": 7}, "lost", "list: entry 7 was acknowledged and is missing"),
        ({"spoil": 7}, "lost", "list: entry 7 was acknowledged and is missing"),
        ({"double": 7}, "duplicated", "list: entry 7 is there 2 times"),
        ({"refuse": 7}, "refused", "batch 7, j7: ERROR 53100: could not extend file: No space left on device"),
        ({"slip": 7}, "lost", "journal: 4 after 6 (batch 7), it went back"),
    ],
    indirect=["postgres"],
)
def test_each_fault_is_red_and_named(postgres, finding, words, tmp_path):
    report = check(record(postgres, tmp_path / "h", Limits(run=0.5)))
    assert (report.verdict, report.connection) == ("red", "kept")
    assert getattr(report, finding).examples[0] == words


def test_a_row_that_nobody_sent_is_foreign(postgres, tmp_path):
    history = record(postgres, tmp_path / "h", Limits(run=0.1))
    beyond = len(history.batches) + 1
    postgres.rows.append((history.run, beyond, rows.content(beyond)))
    later = rows.fetch_final(postgres.address, history.run, 5)
    assert check(history, later).foreign.examples == [f"list: entry {beyond} was never sent"]


@pytest.mark.parametrize("postgres", [{"drop_after": 20}], indirect=True)
def test_a_broken_connection_is_recorded_and_not_made_again(postgres, tmp_path):
    history = record(postgres, tmp_path / "h", Limits(run=30, final=5))
    report = check(history)
    assert len(history.broken) == 1
    assert (history.final.via, report.connection, report.lost.count) == ("new", "broken", 0)
    assert (len(history.acks), report.outstanding) == (20, 1)  # the one in flight was kept, and may be
    assert (report.verdict, postgres.connections) == ("red", 2)


@pytest.mark.parametrize("postgres", [{"hang_after": 20, "forget": 3}], indirect=True)
def test_silence_is_broken_after_the_stall_limit_and_the_loss_is_found(postgres, tmp_path):
    history = record(postgres, tmp_path / "h", Limits(run=30, stall=1, final=5))
    report = check(history)
    assert "no reply for" in history.broken[0]
    assert (report.verdict, report.connection, report.lost.count) == ("red", "broken", 2)


@pytest.mark.parametrize("postgres", [{"hang_after": 20}], indirect=True)
def test_silence_at_the_stop_is_unfinished_after_the_grace_time(postgres, tmp_path):
    history = record(postgres, tmp_path / "h", Limits(run=1.5, grace=0.3, final=5))
    assert history.unfinished
    assert check(history).connection == "stalled"


def test_damage_is_red_and_in_the_report(postgres, tmp_path):
    history = record(postgres, tmp_path / "h", Limits(run=0.1))
    clean, damaged = check(history, damage=[]), check(history, damage=["heap table: xmin 3 precedes", "more"])
    assert (clean.verdict, clean.amcheck) == ("kept", "clean")
    assert (damaged.verdict, damaged.amcheck, damaged.damaged.count) == ("red", "damaged", 2)
    assert "first: heap table: xmin 3 precedes" in damaged.reasons[0]
    assert "pg_amcheck             damaged" in as_text(damaged)
    assert "pg_amcheck" not in as_text(check(history))


def test_without_pg_amcheck_nothing_is_judged(postgres, tmp_path, monkeypatch, capsys):
    record(postgres, tmp_path / "h", Limits(run=0.1))
    monkeypatch.setattr("proof.amcheck.Path.glob", lambda *_: iter(()))
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([str(tmp_path / "h"), "--database", f"127.0.0.1:{postgres.address[1]}"]) == 2
    assert "postgresql-client" in capsys.readouterr().err


def test_the_command_reports_a_guest_that_is_not_there(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code = client_main(["--guest", f"127.0.0.1:{port}", "--history", str(tmp_path / "h"), "--connect-timeout", "0.5"])
    assert code == 1
    assert "refused" in capsys.readouterr().err
