"""The order of records, as a table: in this stage, this kind of record, go there.

A stage knows whose records come next: libxc's CHECKPOINT and END hand the stream to libxl, libxl's LIBXC_CONTEXT
and CHECKPOINT_END (COLO: CHECKPOINT_STATE) hand it back. What a record needs from earlier ones is in
`dependencies`. Sources in Xen: docs/specs/libxc-migration-stream.pandoc (Layout, Compatibility),
tools/libs/guest/xg_sr_save.c (save), tools/libs/light/libxl_stream_read.c, libxl_colo_restore.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream.constants import Layer
from remus_agent.protocol.stream.constants import LibxcRecordType as Xc
from remus_agent.protocol.stream.constants import LibxlRecordType as Xl
from remus_agent.protocol.stream.framing import record_name, refused


class Position(Enum):
    """Where in the stream a reader stands."""

    HEADERS = "in the headers"
    STATIC = "before memory"
    MEMORY = "in the first copy of memory"
    INSIDE_EPOCH = "inside an epoch"
    BETWEEN_EPOCHS = "between epochs"
    TRAILER = "after memory"
    ENDED = "after the end"


class Stage(StrEnum):
    """What has been read so far. The value says where a misplaced record stands."""

    OPENING = "before LIBXC_CONTEXT"
    STATIC = "before STATIC_DATA_END"
    FIRST_COPY = "after STATIC_DATA_END"
    FIRST_STATE = "after the first processor state"
    HANDOVER = "inside a checkpoint"
    WAITING = "between two checkpoints of COLO"
    BETWEEN_EPOCHS = "between two epochs"
    EPOCH_MEMORY = "in the memory of an epoch"
    EPOCH_STATE = "after the processor state of its epoch"
    TRAILER = "after libxc's END"
    ENDED = "after the end"


class Kind(StrEnum):
    """Kinds of records that the order does not tell apart. Optional records may stand anywhere."""

    LIBXC_CONTEXT = "LIBXC_CONTEXT"
    STATIC_DATA = "X86_PV_INFO, X86_CPUID_POLICY, X86_MSR_POLICY"
    STATIC_DATA_END = "STATIC_DATA_END"
    MEMORY = "X86_PV_P2M_FRAMES, PAGE_DATA, VERIFY"
    STATE = "X86_TSC_INFO, processor state"
    CHECKPOINT = "CHECKPOINT"
    LIBXC_END = "END"
    EMULATOR = "EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT"
    CHECKPOINT_END = "CHECKPOINT_END"
    CHECKPOINT_STATE = "CHECKPOINT_STATE"
    LIBXL_END = "END of libxl"


@dataclass(frozen=True, slots=True)
class Row:
    """One step. colo: in streams of COLO only (True), in others only (False), in all (None)."""

    stage: Stage
    kind: Kind
    then: Stage
    comment: str
    colo: bool | None = None


ROWS: Final = (
    Row(Stage.OPENING, Kind.LIBXC_CONTEXT, Stage.STATIC, "libxl hands the stream to libxc."),
    Row(Stage.STATIC, Kind.STATIC_DATA, Stage.STATIC, "What does not change while the guest runs."),
    Row(Stage.STATIC, Kind.STATIC_DATA_END, Stage.FIRST_COPY, "Inferred from the next record in version 2."),
    Row(Stage.FIRST_COPY, Kind.MEMORY, Stage.FIRST_COPY, "All pages, then what became dirty meanwhile."),
    Row(Stage.FIRST_COPY, Kind.STATE, Stage.FIRST_STATE, "The guest is suspended, its memory complete."),
    Row(Stage.FIRST_STATE, Kind.STATE, Stage.FIRST_STATE, "More of the same."),
    Row(Stage.FIRST_STATE, Kind.CHECKPOINT, Stage.HANDOVER, "A checkpointed stream: libxl's turn."),
    Row(Stage.FIRST_STATE, Kind.LIBXC_END, Stage.TRAILER, "A plain stream: libxl's turn."),
    Row(Stage.HANDOVER, Kind.EMULATOR, Stage.HANDOVER, "The device model belongs to the epoch."),
    Row(Stage.HANDOVER, Kind.CHECKPOINT_END, Stage.BETWEEN_EPOCHS, "The epoch is complete: libxc's turn.", colo=False),
    Row(
        Stage.HANDOVER, Kind.CHECKPOINT_END, Stage.WAITING, "The epoch is complete; libxl keeps the stream.", colo=True
    ),
    Row(Stage.WAITING, Kind.CHECKPOINT_STATE, Stage.BETWEEN_EPOCHS, "The primary starts a checkpoint.", colo=True),
    Row(Stage.BETWEEN_EPOCHS, Kind.MEMORY, Stage.EPOCH_MEMORY, "What became dirty in the epoch."),
    Row(Stage.BETWEEN_EPOCHS, Kind.STATE, Stage.EPOCH_STATE, "No page became dirty."),
    Row(Stage.EPOCH_MEMORY, Kind.MEMORY, Stage.EPOCH_MEMORY, "More of the same."),
    Row(Stage.EPOCH_MEMORY, Kind.STATE, Stage.EPOCH_STATE, "The epoch's memory is complete."),
    Row(Stage.EPOCH_STATE, Kind.STATE, Stage.EPOCH_STATE, "More of the same."),
    Row(Stage.EPOCH_STATE, Kind.CHECKPOINT, Stage.HANDOVER, "Libxl's turn."),
    Row(Stage.EPOCH_STATE, Kind.LIBXC_END, Stage.TRAILER, "The last epoch of a stream that is ended by its sender."),
    Row(Stage.TRAILER, Kind.EMULATOR, Stage.TRAILER, "The device model of a plain stream."),
    Row(Stage.TRAILER, Kind.LIBXL_END, Stage.ENDED, "Nothing may follow."),
)
"""The order. Memory after processor state is refused although Xen would take it: HVM_PARAMS clears pages."""

START: Final = Stage.OPENING

_POSITIONS: Final = {
    Stage.OPENING: Position.HEADERS,
    Stage.STATIC: Position.STATIC,
    Stage.FIRST_COPY: Position.MEMORY,
    Stage.FIRST_STATE: Position.MEMORY,
    Stage.HANDOVER: Position.INSIDE_EPOCH,
    Stage.WAITING: Position.BETWEEN_EPOCHS,
    Stage.BETWEEN_EPOCHS: Position.BETWEEN_EPOCHS,
    Stage.EPOCH_MEMORY: Position.INSIDE_EPOCH,
    Stage.EPOCH_STATE: Position.INSIDE_EPOCH,
    Stage.TRAILER: Position.TRAILER,
    Stage.ENDED: Position.ENDED,
}
_LIBXL_STAGES: Final = frozenset({Stage.OPENING, Stage.HANDOVER, Stage.WAITING, Stage.TRAILER, Stage.ENDED})
_KINDS: Final[dict[tuple[Layer, int], Kind]] = {
    (Layer.LIBXL, Xl.LIBXC_CONTEXT): Kind.LIBXC_CONTEXT,
    (Layer.LIBXL, Xl.EMULATOR_XENSTORE_DATA): Kind.EMULATOR,
    (Layer.LIBXL, Xl.EMULATOR_CONTEXT): Kind.EMULATOR,
    (Layer.LIBXL, Xl.CHECKPOINT_END): Kind.CHECKPOINT_END,
    (Layer.LIBXL, Xl.CHECKPOINT_STATE): Kind.CHECKPOINT_STATE,
    (Layer.LIBXL, Xl.END): Kind.LIBXL_END,
    (Layer.LIBXC, Xc.X86_PV_INFO): Kind.STATIC_DATA,
    (Layer.LIBXC, Xc.X86_CPUID_POLICY): Kind.STATIC_DATA,
    (Layer.LIBXC, Xc.X86_MSR_POLICY): Kind.STATIC_DATA,
    (Layer.LIBXC, Xc.STATIC_DATA_END): Kind.STATIC_DATA_END,
    (Layer.LIBXC, Xc.X86_PV_P2M_FRAMES): Kind.MEMORY,
    (Layer.LIBXC, Xc.PAGE_DATA): Kind.MEMORY,
    (Layer.LIBXC, Xc.VERIFY): Kind.MEMORY,
    (Layer.LIBXC, Xc.CHECKPOINT): Kind.CHECKPOINT,
    (Layer.LIBXC, Xc.END): Kind.LIBXC_END,
}
"""Every other record of libxc is processor state."""
_STEPS: Final = {
    colo: {(row.stage, row.kind): row.then for row in ROWS if row.colo in (None, colo)} for colo in (False, True)
}


def mermaid() -> str:
    """The table as a Mermaid state diagram, for docs."""
    lines = ["stateDiagram-v2"]
    for row in ROWS:
        colo = " (COLO)" if row.colo else ""
        lines.append(f"    {row.stage.name.lower()} --> {row.then.name.lower()}: {row.kind.name.lower()}{colo}")
    return "\n".join(lines)


class Order:
    """Where a stream stands. colo: it is a stream of COLO, in which CHECKPOINT_STATE starts each epoch but the
    first. version: of the libxc stream, once known."""

    def __init__(self, *, colo: bool = False) -> None:
        self._colo = colo
        self._steps = _STEPS[colo]
        self.version = c.LIBXC_VERSION
        self.enter(START)

    def enter(self, stage: Stage) -> None:
        """The stream stands in this stage now."""
        self.stage = stage
        self.layer = Layer.LIBXL if stage in _LIBXL_STAGES else Layer.LIBXC
        """Whose record comes next."""

    @property
    def position(self) -> Position:
        """The stage, for people."""
        return _POSITIONS[self.stage]

    def step(self, kind: int, offset: int) -> Stage:
        """The stage after a record of this type, which is not taken yet. offset: of the record. Raises
        StreamError where it may not stand here."""
        if kind & c.RECORD_OPTIONAL:
            return self.stage
        what = _KINDS.get((self.layer, kind), Kind.STATE)
        then = self._steps.get((self._inferred(what), what))
        if then is None:
            name = record_name(self.layer, kind)
            allowed = [known.value for stage, known in self._steps if stage is self.stage]
            raise refused(
                f"wrong order: {self.layer.value}'s {name} {self.stage.value}",
                offset,
                expected=", ".join(allowed),
                found=name,
            )
        return then

    def _inferred(self, what: Kind) -> Stage:
        """Version 2 has no STATIC_DATA_END: whatever is not static data implies it."""
        implied = self.version < c.LIBXC_VERSION and self.stage is Stage.STATIC and what is not Kind.STATIC_DATA
        return Stage.FIRST_COPY if implied else self.stage
