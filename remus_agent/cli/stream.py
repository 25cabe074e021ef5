"""`remusctl stream`: check, show, compare and convert saved domains. Needs no agent."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from xxhash import xxh3_128

from remus_agent.cli import files, output, stream_render
from remus_agent.cli.progress import ProgressLines
from remus_agent.errors import ConfigError, StreamError
from remus_agent.protocol.stream_tools import difference
from remus_agent.protocol.stream_tools.convert import EpochCut, PlainConversion
from remus_agent.protocol.stream_tools.state import State, StateReader
from remus_agent.protocol.stream_tools.summary import Summary, epoch_facts, record_facts
from remus_agent.protocol.stream_tools.walk import CutBetweenEpochs, CutInsideEpoch, StreamCut, StreamWalk, Structure

DIFFERENT: Final = 16
"""Exit code when two streams differ."""


def run(options: argparse.Namespace, progress: ProgressLines) -> int:
    """One tool; returns the exit code. Raises RemusError."""
    return TOOLS[options.tool](options, progress)


def _verify(options: argparse.Namespace, progress: ProgressLines) -> int:
    digest = xxh3_128()
    with files.Input(options.file, progress, "verifying") as source:
        summary = Summary(inside=False)

        def take(structure: Structure) -> None:
            summary.take(structure)
            summary.guest.check(structure)

        error = _walk(source, take, digest=digest.update)
        _show_whole(options, source, summary, error, {"xxh3_128": digest.hexdigest()}, stream_render.verdict)
    _raise(error, summary.epochs)
    return 0


def _inspect(options: argparse.Namespace, progress: ProgressLines) -> int:
    if options.records and options.epochs:
        raise ConfigError("--records and --epochs are two lists", hint="ask for one of them")
    with files.Input(options.file, progress, "reading") as source:
        summary = Summary(inside=True)
        if options.output == "table" and options.records:
            print(stream_render.RECORD_HEADING)
        elif options.output == "table" and options.epochs:
            print(stream_render.EPOCH_HEADING)

        def take(structure: Structure) -> None:
            complete = summary.take(structure)
            if options.records:
                _line(options, record_facts(structure), stream_render.record)
            elif options.epochs and complete is not None:
                _line(options, epoch_facts(complete), stream_render.epoch)

        error = _walk(source, take)
        if options.output == "table" and (options.records or options.epochs):
            print()
        _show_whole(options, source, summary, error, summary.details(), stream_render.inspection)
    _raise(error, summary.epochs)
    return 0


def _diff(options: argparse.Namespace, progress: ProgressLines) -> int:
    if options.file == options.other == files.STANDARD:
        raise ConfigError("standard input can be one of the two streams, not both")
    reader_a, a = _state(options.file, options.epoch_a, progress)
    reader_b, b = _state(options.other, options.epoch_b, progress)
    memory = difference.memory_difference(a, b)
    changes = [asdict(change) for change in difference.changes(reader_a.guest, a, reader_b.guest, b)]
    counts = {f"{kind}_pages": difference.count_pfns(getattr(memory, kind)) for kind in ("differ", "only_a", "only_b")}
    found = {
        "same": memory.same and not changes,
        "a": {"file": options.file, "epoch": a.epoch},
        "b": {"file": options.other, "epoch": b.epoch},
        "memory": asdict(memory) | counts,
        "changes": changes,
    }
    output.show(options, found, stream_render.difference(found))
    return 0 if found["same"] else DIFFERENT


def _state(name: str, epoch: int | None, progress: ProgressLines) -> tuple[StateReader, State]:
    """A stream up to an epoch. A stream that is cut off counts up to its last complete epoch."""
    reader = StateReader(epoch)
    with files.Input(name, progress, f"reading {name}") as source:
        error = _walk(source, reader.take, done=lambda: reader.done)
    _refuse(error, epoch, reader.complete)
    return reader, reader.finish()


def _convert(options: argparse.Namespace, progress: ProgressLines) -> int:
    return _write(options, progress, PlainConversion(options.epoch), "converting")


def _cut(options: argparse.Namespace, progress: ProgressLines) -> int:
    return _write(options, progress, EpochCut(options.epoch), "cutting")


def _write(options: argparse.Namespace, progress: ProgressLines, tool: PlainConversion | EpochCut, phase: str) -> int:
    complete_at = 0
    with files.Input(options.file, progress, phase) as source, files.output(options.target, source) as target:

        def take(structure: Structure) -> None:
            nonlocal complete_at
            complete = tool.complete
            target.write(tool.take(structure))
            if tool.complete != complete:
                complete_at = structure.offset + len(structure.raw)
                if options.epoch is None:
                    target.mark()

        error = _walk(source, take, done=lambda: tool.done)
        _refuse(error, options.epoch, tool.complete)
        target.back()
        target.write(tool.finish())
        target.mark()
    found = {
        "file": options.target,
        "epoch": options.epoch or tool.complete,
        "bytes": target.written,
        "left_out": source.done - complete_at if isinstance(error, CutInsideEpoch) else 0,
    }
    if options.target != files.STANDARD:
        output.show(options, found, stream_render.written(found))
    elif found["left_out"]:
        print(stream_render.written(found), file=sys.stderr)
    return 0


def _walk(
    source: files.Input,
    take: Callable[[Structure], None],
    *,
    done: Callable[[], bool] = lambda: False,
    digest: Callable[[memoryview], None] = lambda _: None,
) -> StreamError | None:
    """Hand over every structure until `done`, or until the stream ends, and every byte to `digest`. Returns the fault
    that ended it, None at its END."""
    walk = StreamWalk()
    try:
        for piece in source.pieces():
            digest(piece)
            for structure in walk.feed(piece):
                take(structure)
                if done():
                    return None
        walk.close()
    except StreamError as error:
        error.operation = f"read {source.name}"
        return error
    return None


def _raise(error: StreamError | None, complete: int) -> None:
    """Raise the fault of a stream, if there is one, and say what can still be done with its complete epochs."""
    if error is None:
        return
    if complete:
        error.hint = f"what is complete, epochs 1 to {complete}, can be used: remusctl stream convert --epoch"
    raise error


def _refuse(error: StreamError | None, wanted: int | None, complete: int) -> None:
    """Raise the fault of a stream, unless it is only cut off and the epoch that is wanted is complete, or is not even
    begun."""
    cut_off = complete + 1 if isinstance(error, CutInsideEpoch) else None
    if not isinstance(error, StreamCut) or (wanted or 1) == cut_off:
        _raise(error, complete)


def _show_whole(
    options: argparse.Namespace,
    source: files.Input,
    summary: Summary,
    error: StreamError | None,
    more: Mapping[str, Any],
    shown: Callable[[Mapping[str, Any]], str],
) -> None:
    """What is known of a stream, also of one that is cut off or damaged; nothing when it is none at all."""
    if summary.guest.xl is None:
        return
    found = {"verdict": _verdict(error)} | summary.as_dict() | {"bytes": source.done} | dict(more)
    if options.output == "table":
        print(shown(found))
    elif getattr(options, "records", False) or getattr(options, "epochs", False):
        print(output.entry({"summary": found}, options.output))
    else:
        print(output.document(found, options.output))


def _verdict(error: StreamError | None) -> str:
    match error:
        case None:
            return "good"
        case CutBetweenEpochs():
            return "cut-between"
        case CutInsideEpoch():
            return "cut-inside"
        case _:
            return "damaged"


def _line(options: argparse.Namespace, one: dict[str, Any], shown: Callable[[Mapping[str, Any]], str]) -> None:
    print(shown(one) if options.output == "table" else output.entry(one, options.output))


TOOLS: Final[dict[str, Callable[[argparse.Namespace, ProgressLines], int]]] = {
    "verify": _verify,
    "inspect": _inspect,
    "diff": _diff,
    "convert": _convert,
    "cut": _cut,
}
