"""The server's side of the Network Block Device protocol, as the write tap speaks it to the client of a protected disk (ADR
0005): fixed newstyle handshake, simple replies, one export. No input or output of its own.

Source: "The NBD protocol", https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md; its sections are named
where they are used.
"""
