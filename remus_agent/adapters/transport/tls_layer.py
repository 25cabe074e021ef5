"""TLS between the frames and the socket of one connection: bytes in, bytes out, nothing else.

Copies: a sent byte is encrypted into OpenSSL's memory and copied out of it once for the socket; a received one is copied
into OpenSSL's memory once and decrypted into the payload of its frame.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, Final

from remus_agent.protocol.replication.frames import Buffer

RECEIVE_BYTES: Final = 256 * 1024
"""Encrypted bytes that are received at once."""


class TlsLayer:
    """One side of one TLS connection."""

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._received = memoryview(bytearray(RECEIVE_BYTES))
        self._failed: ssl.SSLError | None = None

    def get_buffer(self) -> memoryview:
        """Memory for the next encrypted bytes."""
        return self._received

    def received(self, nbytes: int) -> None:
        """Encrypted bytes have come into the memory of get_buffer()."""
        self._incoming.write(self._received[:nbytes])

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is done. What `pending` then gives has to be sent in any case. Raises
        ssl.SSLError. The client's is done before the server has looked at its certificate."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def certificate(self) -> dict[str, Any]:
        """The other side's verified certificate, as the module ssl shows it. Only after the handshake."""
        return self._tls.getpeercert() or {}

    def decrypt(self, into: memoryview) -> int:
        """Fill memory with received bytes; how many there were. Raises ssl.SSLError when the other side has refused us or
        something was forged."""
        if self._failed is not None:
            raise self._failed
        done = 0
        try:
            while done < len(into):
                # With memory given it answers with a number, which typeshed does not know.
                count: int = self._tls.read(len(into) - done, into[done:])  # type: ignore[assignment]
                if count == 0:
                    break  # the other side has said that it ends; its FIN follows
                done += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._failed = error
            if not done:
                raise  # else what came before it is delivered first, and the next call raises it
        return done

    def encrypt(self, data: Buffer) -> bytes:
        """The bytes to send for data. Raises ssl.SSLError."""
        self._tls.write(data)  # OpenSSL's memory grows as needed: it always takes everything
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """The bytes that tell the other side that nothing more is sent."""
        # It would wait for the other side's farewell, which nobody needs: FIN is what ends a connection.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    def pending(self) -> bytes:
        """What TLS itself has to send: of the handshake, an alert, an answer to new keys."""
        return self._outgoing.read() if self._outgoing.pending else b""
