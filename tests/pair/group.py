# ruff: noqa: S608  (the words in the statements are the test's own)
"""Both of the lab's guests as one consistency group: an application on the first, its database on the second.

The application is the first guest's own PostgreSQL: a trigger writes each row that a client inserts to the second guest's as
well, over the bridge between them, and a row is committed there before it is here. It does so for the next client only, because
the first guest's disk outlives the test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from proof import rows

from pair import database
from pair.hosts import GUEST, on, on_both
from pair.second_guest import ADDRESS, NAME

GROUP = "shop"
CONFIGURATION = "/etc/remus/agent.toml"
KEPT = "/run/remus-test-agent.toml"
SECTION = f'\n[groups.{GROUP}]\nmembers = ["{GUEST}", "{NAME}"]\n'
FRESH = "DROP SERVER IF EXISTS second CASCADE; DROP TABLE IF EXISTS orders"
"""The second guest's disk is a copy of the first one's, with what an earlier run has left there."""


def application(after: str, host: str, port: str) -> str:
    """What makes an application of a database. after: number of the newest run of a client. host, port: of the other database.

    It does not ask for encryption first: two more commits, in a minute that a server gives to who logs in."""
    return f"""
{FRESH};
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE SERVER second FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '{host}', port '{port}', dbname '{rows.DATABASE}', sslmode 'disable');
CREATE USER MAPPING FOR {rows.USER} SERVER second OPTIONS (user '{rows.USER}');
CREATE FOREIGN TABLE orders (n bigint NOT NULL) SERVER second;
CREATE OR REPLACE FUNCTION order_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
IF NEW.run = (SELECT name FROM proof_runs WHERE number > {after} ORDER BY number LIMIT 1) THEN
    INSERT INTO orders (n) VALUES (NEW.n);
END IF;
RETURN NULL; END $$;
CREATE OR REPLACE TRIGGER ordering AFTER INSERT ON proof_rows FOR EACH ROW EXECUTE FUNCTION order_it()
"""


@contextlib.contextmanager
def configured() -> Iterator[None]:
    """The group stands in the configuration of both agents, which are started anew for it."""

    def add(host: str) -> None:
        on(host, f"cp {CONFIGURATION} {KEPT} && cat >>{CONFIGURATION}", stdin=SECTION)
        on(host, "systemctl restart remus-agent.service", timeout=180)

    def restore(host: str) -> None:
        on(host, "systemctl stop remus-agent.service", timeout=180)
        on(host, f"cp {KEPT} {CONFIGURATION}; rm -f {KEPT}")
        on(host, f"rm -rf /var/lib/remus/guests/{GROUP}.json /var/lib/remus/journal/{GROUP}*")
        on(host, "systemctl start remus-agent.service", timeout=180)

    on_both(add)
    try:
        yield
    finally:
        on_both(restore)


def prepare() -> None:
    """Tables, and the way from one database to the other."""
    database.sql(f"{FRESH}; CREATE TABLE orders (n bigint NOT NULL)", ADDRESS)
    database.sql(rows.SCHEMA)
    newest = database.sql("SELECT coalesce(max(number), 0) FROM proof_runs")
    database.sql(application(newest, ADDRESS, database.PORT))


def known_to_the_application() -> set[int]:
    """Numbers of the rows that the application holds as committed."""
    return _numbers(f"SELECT n FROM proof_rows WHERE run = ({rows.newest_run()})", database.HOST)


def known_to_the_database() -> set[int]:
    """Numbers of the rows that the database holds."""
    return _numbers("SELECT n FROM orders", ADDRESS)


def _numbers(query: str, host: str) -> set[int]:
    return {int(line) for line in database.sql(query, host).splitlines()}
