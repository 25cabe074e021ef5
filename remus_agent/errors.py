"""Every error a user can meet, in one tree.

    RemusError
    ├── ConfigError             the configuration file or a command's arguments
    ├── RefusedError            a request that the present state does not allow; nothing was changed
    │   ├── DomainNotFound
    │   └── AlreadyProtected
    ├── ProtocolError           bytes that break a format's rules
    │   ├── StreamError         a migration stream (offset known)
    │   ├── ReplicationError    the protocol between two agents
    │   └── NbdError            the protocol between a disk's write tap and its client
    ├── PeerError               the other agent
    │   ├── ConnectionLost
    │   ├── PeerTimeout
    │   └── PeerRefused         it answered with a reason
    ├── HypervisorError         a call into Xen or its toolstack failed
    │   └── GuestEnded          the guest shut down, rebooted or crashed by itself
    ├── OutputBufferError       the plug on a guest's interfaces
    ├── JournalError            the durable record of commits
    ├── DiskError               a protected disk, its tap or its copy
    │   └── LocalDiskFailed     a primary's own device has failed: the backup's copy is the only good one
    ├── AuthorityError          not allowed to run or release; a proof is missing
    │   ├── OwnershipLost       another host owns the guest
    │   └── AnotherOwner        this host owns the guest that another one wants to protect
    ├── WitnessError            the record of who may run a guest
    │   ├── WitnessUnreachable  it could not be asked; nothing was changed
    │   ├── RecordLost          it has no record any more of a guest that had one
    │   ├── WitnessConflict     the record is not what it was taken for, by now
    │   └── WitnessUnknown      whether a change was made is not known
    ├── FencingError            a host could not be switched off, or its fence agent does not work
    │   ├── FenceTimeout        the fence agent did not end in time
    │   ├── FenceUnconfirmed    the host was told to go off, and is not seen to be off
    │   └── FenceYielded        the host is about to switch this one off, so it was not told to go off
    ├── SwitchoverError         a planned move was called off; the guest runs where it was
    │   └── SwitchoverInDoubt   handed over, and the backup has not said whether it runs it
    └── FileError               a file or a pipe that a command was given

Each carries what a person needs: the operation, the domain, the epoch, the state that was left behind and the next
step. `code` is stable and machine-readable (control socket, modules); `exit_code` is what `remusctl` ends with.
"""

from __future__ import annotations

from typing import Any, ClassVar


class RemusError(Exception):
    """Base of all errors that are reported to a user.

    message: what failed. operation, domain, epoch: where. left: the state left behind. hint: what to do next.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        operation: str | None = None,
        domain: str | None = None,
        epoch: int | None = None,
        left: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.domain = domain
        self.epoch = epoch
        self.left = left
        self.hint = hint

    def as_dict(self) -> dict[str, Any]:
        """The error as the control socket sends it; absent facts are left out."""
        facts: dict[str, Any] = {"code": self.code, "message": self.message}
        for name in ("operation", "domain", "epoch", "left", "hint"):
            value = getattr(self, name)
            if value is not None:
                facts[name] = value
        return facts

    def __str__(self) -> str:
        where = ", ".join(
            text
            for text in (
                self.operation,
                f"domain {self.domain}" if self.domain is not None else None,
                f"epoch {self.epoch}" if self.epoch is not None else None,
            )
            if text
        )
        parts = [f"{where}: {self.message}" if where else self.message]
        if self.left:
            parts.append(f"State left: {self.left}.")
        if self.hint:
            parts.append(f"Next: {self.hint}.")
        return " ".join(parts)


class ConfigError(RemusError):
    """The configuration file or a command's arguments are wrong."""

    code = "config"
    exit_code = 2


class RefusedError(RemusError):
    """The present state does not allow this request; nothing was changed."""

    code = "refused"
    exit_code = 3


class DomainNotFound(RefusedError):
    """No running or protected domain has this name."""

    code = "domain-not-found"
    exit_code = 4


class AlreadyProtected(RefusedError):
    """The domain is protected already."""

    code = "already-protected"
    exit_code = 5


class ProtocolError(RemusError):
    """Bytes that break the rules of a format."""

    code = "protocol"
    exit_code = 6


class StreamError(ProtocolError):
    """A migration stream breaks its specification.

    what: the rule that is broken. offset: where, in bytes from the start of the stream. expected, found: what the rule
    asks for and what stands there. layer: `xl`, `libxl` or `libxc`; record: the type of the record, or the name of the
    header; ordinal: the number of the record in the stream, from 1 on, headers not counted; start: offset of the
    record's or header's first byte. What is not known is None.
    """

    code = "stream"
    layer: str | None = None
    record: str | None = None
    ordinal: int | None = None
    start: int | None = None
    expected: str | None = None
    found: str | None = None

    def __init__(
        self,
        message: str,
        *,
        offset: int,
        expected: str | None = None,
        found: str | None = None,
        **facts: Any,
    ) -> None:
        self.what = message
        self.offset = offset
        self.expected = expected
        self.found = found
        super().__init__(self._text(), **facts)

    def locate(self, layer: str, record: str, *, start: int, ordinal: int | None = None) -> None:
        """Say in which record or header it happened; a place that is known already is kept."""
        if self.record is None:
            self.layer, self.record, self.ordinal, self.start = layer, record, ordinal, start
            self.message = self._text()
            self.args = (self.message,)

    def as_dict(self) -> dict[str, Any]:
        """The error as the control socket sends it, with its place in the stream; absent facts are left out."""
        facts = super().as_dict()
        for name in ("offset", "layer", "record", "ordinal", "start", "expected", "found"):
            value = getattr(self, name)
            if value is not None:
                facts[name] = value
        return facts

    def _text(self) -> str:
        text = self.what
        if self.expected is not None:
            text += f"; expected {self.expected}, found {self.found}"
        place = f"at byte {self.offset}"
        if self.ordinal is not None:
            place = f"{self.layer} record {self.ordinal}, {self.record} from byte {self.start}, {place}"
        elif self.record is not None:
            place = f"{self.layer}, {self.record} from byte {self.start}, {place}"
        return f"{text} ({place})"


class ReplicationError(ProtocolError):
    """A frame between agents is malformed, out of order or fails its digest."""

    code = "replication"


class NbdError(ProtocolError):
    """What an NBD client sent, or what was to be sent to it, breaks the NBD protocol; its connection is of no use any more.

    expected, found: what the rule asks for and what stands there; None where the message says it all.
    """

    code = "nbd"

    def __init__(self, message: str, *, expected: str | None = None, found: str | None = None, **facts: Any) -> None:
        self.expected = expected
        self.found = found
        super().__init__(message if expected is None else f"{message}; expected {expected}, found {found}", **facts)

    def as_dict(self) -> dict[str, Any]:
        """The error as the control socket sends it; absent facts are left out."""
        facts = super().as_dict()
        for name in ("expected", "found"):
            value = getattr(self, name)
            if value is not None:
                facts[name] = value
        return facts


class PeerError(RemusError):
    """The other agent."""

    code = "peer"
    exit_code = 7


class ConnectionLost(PeerError):
    """The connection to the other agent ended or could not be made."""

    code = "connection-lost"


class PeerTimeout(PeerError):
    """The other agent did not answer in time."""

    code = "peer-timeout"


class PeerRefused(PeerError):
    """The other agent answered that it will not; its reason is the message. reasons: the codes of all that it gave."""

    code = "peer-refused"

    def __init__(self, message: str, *, reasons: tuple[str, ...] = (), **facts: Any) -> None:
        self.reasons = reasons
        super().__init__(message, **facts)


class HypervisorError(RemusError):
    """A call into Xen or its toolstack failed."""

    code = "hypervisor"
    exit_code = 8


class GuestEnded(HypervisorError):
    """The guest shut down, rebooted or crashed by itself; protection of it ends."""

    code = "guest-ended"


class OutputBufferError(RemusError):
    """The plug on a guest's interfaces could not be set or read."""

    code = "output-buffer"
    exit_code = 9


class JournalError(RemusError):
    """The durable record of commits could not be written or read."""

    code = "journal"
    exit_code = 10


class DiskError(RemusError):
    """A protected disk, its write tap or its copy on the backup."""

    code = "disk"
    exit_code = 16


class LocalDiskFailed(DiskError):
    """The device below a primary's tap has failed: what was written since then is on the backup only."""


class AuthorityError(RemusError):
    """Not allowed to run or release this guest: a proof is missing or stale."""

    code = "authority"
    exit_code = 11


class OwnershipLost(AuthorityError):
    """Another host owns the guest: what runs here must stop."""

    code = "ownership-lost"


class AnotherOwner(AuthorityError):
    """This host owns the guest, of which another one believes that it is the primary."""

    code = "another-owner"


class WitnessError(RemusError):
    """The record in the witness of who may run a guest could not be read or changed."""

    code = "witness"
    exit_code = 17


class WitnessUnreachable(WitnessError):
    """The witness could not be asked. Nothing was changed, for sure."""

    code = "witness-unreachable"


class RecordLost(WitnessError):
    """The witness has no record of a guest that had one: it has lost its data. Nothing was changed."""

    code = "record-lost"


class WitnessConflict(WitnessError):
    """The record is not what the change was asked for on, by now. Whoever has to know whether it was changed by somebody else, or
    by a request of ours that something on the way has repeated, reads it again."""

    code = "witness-conflict"


class WitnessUnknown(WitnessError):
    """A change was asked for and no answer came: it may have been made, and may still be made. Only reading tells."""

    code = "witness-unknown"


class FencingError(RemusError):
    """A host could not be fenced, or the state of its power is not known."""

    code = "fencing"
    exit_code = 18


class FenceTimeout(FencingError):
    """The fence agent did not end in time, and was killed. What it was told to do may be done, or half done."""

    code = "fence-timeout"


class FenceUnconfirmed(FencingError):
    """The host was told to go off, and is not seen to be off: it may be on."""

    code = "fence-unconfirmed"


class FenceYielded(FencingError):
    """The host is about to switch this one off, and of two only one may. It was told nothing."""

    code = "fence-yielded"


class SwitchoverError(RemusError):
    """A switchover was called off: the guest runs where it was."""

    code = "switchover"
    exit_code = 19


class SwitchoverInDoubt(SwitchoverError):
    """The guest was handed over, and it is not known yet whether the backup runs it: it is down here."""

    code = "switchover-in-doubt"
    exit_code = 20


class FileError(RemusError):
    """A file, a pipe or a device cannot be read or written."""

    code = "file"
    exit_code = 13
