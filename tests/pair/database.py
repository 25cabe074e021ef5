"""The guest's PostgreSQL, asked from the lab's network, and made forgetful."""

from __future__ import annotations

from proof import rows

from pair.hosts import POSTGRESQL, CommandFailed, in_namespace, run
from pair.wait import until

HOST, _, PORT = POSTGRESQL.partition(":")
FORGET = """
CREATE EXTENSION IF NOT EXISTS pg_buffercache;
CREATE OR REPLACE FUNCTION forget_rows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
PERFORM pg_buffercache_evict(bufferid) FROM pg_buffercache WHERE relfilenode IN
    (pg_relation_filenode('proof_rows'), pg_relation_filenode('proof_rows_by_number'));
RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER forgetful AFTER INSERT ON proof_rows EXECUTE FUNCTION forget_rows()
"""
RESTART = (
    "COPY (SELECT 1) TO PROGRAM 'setsid $(echo /usr/lib/postgresql/*/bin)/pg_ctl restart -m fast"
    " -D /var/lib/postgresql/proof >/dev/null 2>&1 </dev/null &'"
)
EVICTS = 170000
"""The first version that can be told to forget a page."""


def sql(statements: str, host: str = HOST, timeout: float = 120) -> str:
    """What PostgreSQL answers to some statements, in one transaction."""
    words = ("psql", "-h", host, "-p", PORT, "-U", rows.USER, "-d", rows.DATABASE, "-v", "ON_ERROR_STOP=1")
    return run(in_namespace(*words, "-qAtc", statements), timeout=timeout).strip()


def wait_ready(host: str = HOST, timeout: float = 300) -> None:
    """Wait until it takes connections."""
    words = in_namespace("pg_isready", "-q", "-h", host, "-p", PORT, "-t", "5")
    until("PostgreSQL answers", lambda: run(words) == "", timeout=timeout, passing=(Exception,))


def can_forget(host: str = HOST) -> bool:
    """Whether this version of PostgreSQL can be told to forget what it holds in memory."""
    return int(sql("SHOW server_version_num", host)) >= EVICTS


def past_the_cache(wanted: bool, host: str = HOST) -> None:
    """Have it read its data from the disk, past the guest's page cache, or not. It starts again where that is a change, and
    what reads much, such as a check of the whole database, takes minutes then."""

    def is_so() -> bool:
        return ("data" in sql("SHOW debug_io_direct", host)) == wanted

    if not is_so():
        change = "SET debug_io_direct = 'data'" if wanted else "RESET debug_io_direct"
        sql(f"ALTER SYSTEM {change}", host)
        sql(RESTART, host)
        until("PostgreSQL has started again", is_so, timeout=120, passing=(CommandFailed,))


def forgetful(host: str = HOST) -> bool:
    """From now on each row is on the disk before it is committed, and the next is inserted into pages that come from the disk:
    memory would hide a disk that is not of its epoch. False when this version of PostgreSQL can't."""
    if not can_forget(host):
        return False
    past_the_cache(True, host)
    sql(rows.SCHEMA, host)
    sql(FORGET, host)
    return True
