# ruff: noqa: S608
"""Client, checker and pg_amcheck against a PostgreSQL of this machine, started for these tests where there is one."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from pair import group
from proof import rows
from proof.amcheck import NoAmcheck, amcheck
from proof.checker import check, main
from proof.client import Limits, Load
from proof.history import Recorder, read
from proof.pgwire import query
from proof.row_client import run
from proof.state import StateError

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
pytestmark = pytest.mark.skipif(not SERVERS, reason="needs Debian's package postgresql")


def as_somebody(folder):
    """Words that run a command as somebody who is not root (PostgreSQL insists on that), to whom FOLDER is given."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


@contextlib.contextmanager
def started():
    """A server with an empty database `proof` that trusts everybody on the loopback network."""
    binaries = SERVERS[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="remus-proof-"))
    data = folder / "data"
    user = as_somebody(folder)
    words = [*user, str(binaries / "initdb"), "-D", str(data), "-U", rows.USER, "--auth=trust", "--no-sync", "-k"]
    subprocess.run(words, check=True, capture_output=True, cwd=folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = [*user, str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-p", str(port)]
    words += ["-h", "127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
    try:
        make = [*user, str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", rows.USER, rows.DATABASE]
        until = time.monotonic() + 60
        while subprocess.run(make, check=False, capture_output=True, cwd=folder).returncode:
            assert server.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.1)
        yield ("127.0.0.1", port)
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def address():
    with started() as found:
        yield found


def sql(address, statement):
    with socket.create_connection(address) as connection:
        return rows.ask(connection, rows.log_in(connection), query(statement)).rows


def record(address, path, limits):
    with path.open("w") as file:
        run(address, Recorder(file), Load(rate=200), limits, lambda: False)
    with path.open() as file:
        return read(file)


def judge(address, path):
    return main([str(path), "--database", f"{address[0]}:{address[1]}"])


@pytest.fixture
def history(address, tmp_path):
    """A good run in `history.jsonl`."""
    return record(address, tmp_path / "history.jsonl", Limits(run=0.5))


def test_a_good_run_is_kept_and_the_database_is_whole(address, history, tmp_path, capsys):
    assert len(history.acks) > 10
    assert check(history).verdict == "kept"
    assert judge(address, tmp_path / "history.jsonl") == 0
    assert "pg_amcheck             clean" in capsys.readouterr().out


def test_a_lost_row_is_red(address, history, tmp_path, capsys):
    sql(address, f"DELETE FROM proof_rows WHERE run = '{history.run}' AND n = 5")
    assert judge(address, tmp_path / "history.jsonl") == 1
    assert "entry 5 was acknowledged and is missing" in capsys.readouterr().out


def test_a_doubled_row_is_red(address, history, tmp_path, capsys):
    sql(address, f"INSERT INTO proof_rows SELECT * FROM proof_rows WHERE run = '{history.run}' AND n = 5")
    assert judge(address, tmp_path / "history.jsonl") == 1
    assert "entry 5 is there 2 times" in capsys.readouterr().out


def test_a_row_with_other_content_is_red(address, history, tmp_path, capsys):
    sql(address, f"UPDATE proof_rows SET content = 'x' WHERE run = '{history.run}' AND n = 5")
    assert judge(address, tmp_path / "history.jsonl") == 1
    assert "entry 5 was acknowledged and is missing" in capsys.readouterr().out


def test_a_commit_that_was_taken_back_is_red(address, history, tmp_path, capsys):
    """As after a failover to a checkpoint from before acknowledgements that were let out too early."""
    last = len(history.acks)
    sql(address, f"DELETE FROM proof_rows WHERE run = '{history.run}' AND n > {last - 3}")
    assert judge(address, tmp_path / "history.jsonl") == 1
    assert "3 acknowledged and lost" in capsys.readouterr().out


def test_an_index_that_lacks_a_row_is_found(address, history, tmp_path, capsys):
    index = "indexrelid = 'proof_rows_by_number'::regclass"
    sql(address, f"UPDATE pg_index SET indisready = false WHERE {index}")
    sql(address, "INSERT INTO proof_rows VALUES ('another', 1, '')")
    sql(address, f"UPDATE pg_index SET indisready = true WHERE {index}")
    try:
        found = amcheck(address)
        assert any("lacks matching index tuple" in line for line in found), found
        assert judge(address, tmp_path / "history.jsonl") == 1
        assert "found by pg_amcheck" in capsys.readouterr().out
    finally:
        sql(address, "REINDEX TABLE proof_rows")
    assert amcheck(address) == []


def test_the_end_of_the_connection_breaks_the_proof_and_loses_nothing(address, tmp_path):
    path = tmp_path / "history.jsonl"

    def terminate():
        until = time.monotonic() + 20
        while time.monotonic() < until and not (path.exists() and path.read_text().count('"ack"') > 5):
            time.sleep(0.02)
        sql(
            address, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO proof_rows%'"
        )

    thread = threading.Thread(target=terminate)
    thread.start()
    report = check(record(address, path, Limits(run=20, final=10)))
    thread.join()
    assert (report.verdict, report.connection, report.final_via) == ("red", "broken", "new")
    assert (report.lost.count, report.duplicated.count) == (0, 0)


def test_what_postgresql_refuses_is_said(address):
    with pytest.raises(StateError, match="42P01"):
        sql(address, "SELECT * FROM nothing")


def test_a_check_that_cannot_be_made_is_not_clean():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NoAmcheck, match="refused"):
        amcheck(("127.0.0.1", port))


def test_an_application_writes_the_rows_of_its_next_client_to_another_database(address, tmp_path):
    """As on the lab, where each of the two is in a guest of a consistency group."""
    sql(address, rows.SCHEMA)
    with started() as other:
        sql(other, f"{group.FRESH}; CREATE TABLE orders (n bigint NOT NULL)")
        ((newest,),) = sql(address, "SELECT coalesce(max(number), 0) FROM proof_runs")
        sql(address, group.application(newest, other[0], str(other[1])))
        try:
            first = record(address, tmp_path / "first.jsonl", Limits(run=0.5))
            record(address, tmp_path / "second.jsonl", Limits(run=0.5))
            assert len(first.acks) > 3
            ordered = [int(n) for (n,) in sql(other, "SELECT n FROM orders ORDER BY n")]
            assert ordered == [*range(1, len(first.acks) + 1)]
        finally:
            sql(address, f"DROP TRIGGER ordering ON proof_rows; {group.FRESH}")
