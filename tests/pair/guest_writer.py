"""A writer inside the guest, on the disk of its PostgreSQL: what the guest itself sees of its disk, past every layer below it."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from pair import database
from pair.hosts import CommandFailed
from pair.wait import until

FOLDER = "/var/lib/postgresql/writer"
SLOW = 1.0
SCRIPT = f"""
use strict; use warnings;
use Fcntl; use IO::Handle;
use constant {{ BLOCK => 4096, BLOCKS => 256, O_DSYNC => 010000 }};
sub put {{ open my $file, '>', $_[0] or die "$_[0]: $!"; print $file $_[1]; close $file or die "$_[0]: $!" }}
sub uptime {{ open my $file, '<', '/proc/uptime' or die $!; (split ' ', <$file>)[0] }}
chdir '{FOLDER}' or die $!; unlink 'said', 'end';
sysopen my $blocks, 'blocks', O_RDWR | O_CREAT | O_DSYNC or die $!;
open my $slow, '>', 'slow' or die $!; $slow->autoflush(1);
my ($writes, $failed, $longest) = (0, 0, 0);
until (-e 'end') {{
    sysseek $blocks, BLOCK * int(rand BLOCKS), 0;
    my ($wall, $begun) = (time, uptime);
    my $done = syswrite $blocks, pack('Q', $writes) x (BLOCK / 8);
    my $took = uptime() - $begun;
    ++$failed unless defined $done && $done == BLOCK;
    ++$writes;
    $longest = $took if $took > $longest;
    printf $slow "%d %.2f\\n", $wall, $took if $took > {SLOW};
    put '/dev/shm/writing', "$writes $failed $longest"; rename '/dev/shm/writing', '/dev/shm/written';
    select undef, undef, undef, 0.02;
}}
put 'said', "$writes $failed $longest";
"""
"""In Perl, which that disk has. Each write is one block that is on the disk before the call returns; its time, in hundredths of
a second as /proc/uptime has them, has in it what the guest was down meanwhile. In `slow`: when a slow one began, and what it
took."""


class WriterError(Exception):
    """The writer in the guest does not run or has said nothing that can be read."""


@dataclass(frozen=True, slots=True)
class Written:
    """How it went. longest: seconds of one write."""

    writes: int
    failed: int
    longest: float

    @classmethod
    def parse(cls, said: str) -> Written:
        """From the writer's line."""
        try:
            writes, failed, longest = said.split()
            return cls(int(writes), int(failed), float(longest))
        except ValueError as error:
            raise WriterError(f"the writer in the guest has said {said!r}") from error


def start() -> None:
    """It writes until `stop`, or as long as the guest lives."""
    script = base64.b64encode(SCRIPT.encode()).decode()
    database.sql(f"COPY (SELECT '{script}') TO PROGRAM 'mkdir -p {FOLDER} && base64 -d >{FOLDER}/script'")
    database.sql(f"COPY (SELECT 1) TO PROGRAM 'setsid perl {FOLDER}/script >{FOLDER}/log 2>&1 </dev/null &'")
    until("the guest writes", lambda: written().writes > 0, timeout=120, passing=(CommandFailed, WriterError))


def written() -> Written:
    """What a running writer has done so far."""
    return Written.parse(database.sql("SELECT pg_read_file('/dev/shm/written')"))


def slow() -> list[tuple[float, float]]:
    """Of each write that took longer than SLOW: the wall time of its start, in seconds, and what it took."""
    lines = database.sql(f"SELECT pg_read_file('{FOLDER}/slow')").splitlines()
    return [(float(begun), float(took)) for begun, took in map(str.split, lines)]


def stop() -> Written:
    """End it; all that it has done."""
    database.sql(f"COPY (SELECT 1) TO PROGRAM 'touch {FOLDER}/end'")
    return until(
        "the writer in the guest has ended",
        lambda: Written.parse(database.sql(f"SELECT pg_read_file('{FOLDER}/said')")),
        timeout=120,
        passing=(CommandFailed, WriterError),
    )
