"""The client against a small Redis of our own that can be told to misbehave."""

import socket
import threading
import time

import pytest
from proof.checker import check
from proof.client import Limits, Load, main, run
from proof.history import Recorder, read
from proof.resp import Decoder


class FakeRedis:
    """Serves the handful of commands the proof uses. drop_after: replies until the connection is reset;
    hang_after: until it falls silent; forget: how much of each counter is forgotten then."""

    def __init__(self, drop_after=None, hang_after=None, forget=0):
        self.values, self.lists = {}, {}
        self.drop_after, self.hang_after, self.forget = drop_after, hang_after, forget
        self.replies = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
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
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        decoder = Decoder()
        with connection:
            while data := connection.recv(65536):
                for words in decoder.feed(data):
                    answer = self.answer([word.decode() for word in words])
                    self.replies += 1
                    if self.hang_after is not None and self.replies > self.hang_after:
                        self.lapse()
                        self.hang_after = None
                        self.closing.wait(30)
                        return
                    if self.drop_after is not None and self.replies > self.drop_after:
                        self.lapse()
                        self.drop_after = None
                        return
                    connection.sendall(answer)

    def lapse(self):
        for key, value in self.values.items():
            if isinstance(value, int):
                self.values[key] = value - self.forget

    def answer(self, words):
        name, key = words[0], words[1]
        if name in {"INCR", "RPUSH"}:
            return b":%d\r\n" % self.add(*words)
        if name == "SET":
            self.values[key] = words[2]
            return b"+OK\r\n"
        if name == "DEL":
            for gone in words[1:]:
                self.values.pop(gone, None)
                self.lists.pop(gone, None)
            return b":0\r\n"
        if name == "LRANGE":
            return self.array(self.lists.get(key, []))
        if name == "MGET":
            return self.array([self.values.get(each) for each in words[1:]])
        return self.bulk(self.values.get(key))

    def add(self, name, key, entry=None):
        if name == "RPUSH":
            self.lists.setdefault(key, []).append(entry)
            return len(self.lists[key])
        self.values[key] = self.values.get(key, 0) + 1
        return self.values[key]

    def bulk(self, value):
        return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(str(value)), str(value).encode())

    def array(self, values):
        return b"*%d\r\n" % len(values) + b"".join(map(self.bulk, values))


@pytest.fixture
def redis(request):
    server = FakeRedis(**getattr(request, "param", {}))
    yield server
    server.close()


def record(redis, path, limits, stop=lambda: False):
    with path.open("w") as file:
        run(redis.address, Recorder(file), Load(counters=3, per_batch=2, rate=500), limits, stop)
    with path.open() as file:
        return read(file)


def test_a_run_to_its_deadline_is_kept(redis, tmp_path):
    history = record(redis, tmp_path / "h", Limits(run=0.3))
    assert (history.stopped, history.complete, history.final.via) == ("deadline", True, "same")
    assert history.batches[1].ops == ("c0", "c1", "c2", "j1", "c0", "c1", "c2", "j2")
    assert check(history).verdict == "kept"


def test_a_stop_signal_ends_a_run(redis, tmp_path):
    until = time.monotonic() + 0.2
    history = record(redis, tmp_path / "h", Limits(), lambda: time.monotonic() > until)
    assert (history.stopped, check(history).verdict) == ("signal", "kept")


def test_old_keys_do_not_count(redis, tmp_path):
    record(redis, tmp_path / "h", Limits(run=0.1))
    assert check(record(redis, tmp_path / "i", Limits(run=0.1))).verdict == "kept"


@pytest.mark.parametrize("redis", [{"drop_after": 50}], indirect=True)
def test_a_broken_connection_is_recorded_and_not_made_again(redis, tmp_path):
    history = record(redis, tmp_path / "h", Limits(run=30, final=5))
    report = check(history)
    assert len(history.broken) == 1
    assert (history.final.via, report.connection, report.lost.count) == ("new", "broken", 0)
    assert len(history.acks) <= 50


@pytest.mark.parametrize("redis", [{"hang_after": 50, "forget": 3}], indirect=True)
def test_silence_is_broken_after_the_stall_limit_and_the_loss_is_found(redis, tmp_path):
    history = record(redis, tmp_path / "h", Limits(run=30, stall=2, final=5))
    report = check(history)
    assert "no reply for" in history.broken[0]
    assert (report.verdict, report.connection) == ("red", "broken")
    assert report.lost.count > 0


@pytest.mark.parametrize("redis", [{"hang_after": 50}], indirect=True)
def test_silence_at_the_stop_is_unfinished_after_the_grace_time(redis, tmp_path):
    history = record(redis, tmp_path / "h", Limits(run=3, grace=0.3, final=5))
    assert history.unfinished
    assert check(history).connection == "stalled"


def test_the_command_reports_a_guest_that_is_not_there(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code = main(["--guest", f"127.0.0.1:{port}", "--history", str(tmp_path / "h"), "--connect-timeout", "0.5"])
    assert code == 1
    assert "refused" in capsys.readouterr().err
