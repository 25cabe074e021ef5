"""The proof that a client loses nothing when a protected guest's host dies.

    client.py      a Redis client on ONE long TCP connection that writes down every reply it gets
    row_client.py  the same with PostgreSQL: one row, one transaction, one line
    checker.py     judges what the client wrote down against what the guest holds afterwards
    history.py     the file between the two: one JSON object a line
    resp.py        Redis' wire format, as much of it as is needed
    pgwire.py      PostgreSQL's, likewise
    state.py       what the guest's Redis holds: read over a fresh connection
    rows.py        what its PostgreSQL holds
    amcheck.py     what pg_amcheck says of that
    blocks.py      is a device's file system clean, are two devices equal

Clients and checker use the standard library only, so that they run wherever Python 3.11 does; they know
nothing of Remus. That is the point: they see what any client sees. They speak the wire formats themselves
because the proof is about single replies: when each byte came, on which connection, and that nothing between
the proof and the socket reconnects, repeats or waits on its own.

What counts as what
-------------------

The client keeps at most one batch outstanding. A batch increments several counters and appends its own
number to a list (``INCR``... ``RPUSH``), so each reply says how often a request of that kind was carried
out so far.

A row in PostgreSQL is to the checker what a list entry is: its number is the entry and the value of the
reply, and a batch is one row. Its reply is the end of a transaction (`INSERT 0 1`, then ready and idle), so
"acknowledged" means committed.

*Acknowledged*: the client has the reply. Everything acknowledged must still be true after a failover.

*Lost*: something acknowledged is not true any more. A counter answers with a value it had answered before,
the final counter is below the last acknowledged value, or an acknowledged list entry is missing.

*Duplicated*: a request was carried out twice in the history that the client can see. A counter jumps by
more than one, the final counter exceeds what was acknowledged plus what was outstanding, or the list (the
table) holds an entry twice.

*Not a duplicate*: a request that was sent, carried out in an epoch that was dropped, and carried out again.
When the primary dies, the restored copy continues from the last committed checkpoint. What the primary did
after it happened to a machine that nobody has ever seen: its replies were held back and died with it, TCP's
acknowledgements among them. So the client's TCP still has the request, sends it once more, and the restored
copy carries it out. Seen from the client and from the final state it happened once; the checker counts what
can be seen, and sees one.

*Unacknowledged at the end*: a request without a reply may have been carried out or not; both are right.
Therefore the final counter may lie anywhere from the last acknowledged value to that plus the number of
outstanding increments.

*Connection kept*: the one TCP connection carried requests from the first to the last reply. A client that
quietly reconnects would hide the difference between a failover and a reboot, so this one never does; it
reconnects only to read the final state, after the break is on record.
"""
