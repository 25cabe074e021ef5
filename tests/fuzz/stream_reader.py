"""Coverage-guided fuzzing of the stream codec.

    python tests/fuzz/stream_reader.py -atheris_runs=1000000        options of libFuzzer follow; inputs that failed stay
                                                                    in ./crash-…
    python tests/fuzz/stream_reader.py crash-…                      run one input again

What an input says: its first byte picks what is fed with what in front (see `_MODES`), its second how it is cut into
chunks, the rest is the stream, in which runs of one byte are written short (`expand`). The seeds are the streams of
`tests/streams/samples.py`; they are written into a temporary folder at each start, so no file of bytes is kept.

`check` is the property: whatever the bytes, a reader takes them or raises one StreamError that says layer, offset,
what was expected and what was found; chunks and views make no difference; what was taken can be put together again.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["remus_agent.protocol.stream", "remus_agent.errors"]):
    from remus_agent.errors import StreamError
    from remus_agent.protocol.stream import hvm_context, preamble, records
    from remus_agent.protocol.stream.constants import GuestType
    from remus_agent.protocol.stream.epoch import parse_epoch
    from remus_agent.protocol.stream.reader import Event, StreamReader, iter_records

from streams import samples  # noqa: E402

LONGEST = 64 << 10
"""Bytes of a stream after expansion; what is longer is cut."""
_RUN = b"\xf7\x7f"
"""Mark of a run: then the byte, and u16 how many of it."""
_RUNS = re.compile(rb"\xf7\x7f(.)(..)", re.DOTALL)


def expand(data: bytes) -> bytes:
    """A stream from its short form. Runs make it small enough for a fuzzer to mutate where it matters."""
    out = _RUNS.sub(lambda run: run[1] * (int.from_bytes(run[2], "little") % 8193), data)
    return out[:LONGEST]


def compact(stream: bytes) -> bytes:
    """The short form of a stream."""
    return re.sub(
        rb"(.)\1{15,8191}",
        lambda run: _RUN + run[1] + len(run[0]).to_bytes(2, "little"),
        stream,
        flags=re.DOTALL,
    )


def check(data: bytes) -> None:
    """The property. Raises AssertionError, or whatever escapes the codec."""
    if len(data) < 2:
        return
    _MODES[data[0] % len(_MODES)](expand(data[2:]), data[1] or 256)


def _read(chunks: list[bytes], *, colo: bool, own: bool) -> tuple[list[Event], StreamError | None]:
    reader = StreamReader(colo=colo)
    events: list[Event] = []
    size = sum(map(len, chunks))
    try:
        for chunk in chunks:
            events.extend(reader.feed(chunk) if own else reader.views(chunk))
            assert reader._held.nbytes <= max(8 << 20, 2 * size), "memory for what never came"
        reader.close()
    except StreamError as error:
        _complete(error, size)
        try:
            reader.feed(b"")
        except StreamError as again:
            assert again is error, "not the same error again"
        else:
            raise AssertionError("a reader came back to life") from error
        return events, error
    return events, None


def _complete(error: StreamError, size: int) -> None:
    assert 0 <= error.offset <= size, error
    assert error.layer in ("xl", "libxl", "libxc"), error
    assert error.record, error
    assert error.expected and error.found, error
    assert error.start is not None and error.start <= size, error
    assert error.as_dict()["message"] in str(error)


def _streams(prefix: bytes, *, colo: bool = False) -> Callable[[bytes, int], None]:
    def run(data: bytes, cut: int) -> None:
        stream = prefix + data
        events, error = _read([stream], colo=colo, own=False)
        if cut % 4:  # comparing is most of the work
            cut = max(1, len(stream))
        chunks = [stream[at : at + 7 * cut] for at in range(0, len(stream), 7 * cut)]
        again, same = _read(chunks, colo=colo, own=True)
        assert str(same) == str(error), "chunks make a difference"
        assert again == (events if error is None else events[: len(again)]), "chunks make a difference"
        found = [event for event in events if isinstance(event, records.Record)]
        assert [record.ordinal for record in found] == list(range(1, len(found) + 1))
        for record in found:
            assert bytes(record.raw) == stream[record.offset : record.offset + len(record.raw)]
        if error is None:
            assert found[-1].offset + len(found[-1].raw) == len(stream)

    return run


def _epochs(guest: GuestType) -> Callable[[bytes, int], None]:
    def run(data: bytes, cut: int) -> None:
        with contextlib.suppress(StreamError):
            views = [record.raw for record in iter_records(data)]
            epoch = parse_epoch(views, max_pfn=0x3FFF, guest=guest)
            assert sum(map(len, [*epoch.page_records, *epoch.tail, *epoch.emulator])) <= len(data)
            assert epoch.tail

    return run


def _preambles(data: bytes, cut: int) -> None:
    with contextlib.suppress(StreamError):
        found = preamble.parse_preamble(data)
        again = preamble.parse_preamble(preamble.renamed(data, "another"))  # what is there may be no name at all
        found.config["c_info"]["name"] = "another"
        assert again.config == found.config


def _contexts(data: bytes, cut: int) -> None:
    with contextlib.suppress(StreamError):
        for record in hvm_context.walk(memoryview(data)):
            assert record.name
            assert set(hvm_context.values(record)) == {field.name for field in hvm_context.fields(record)}


_MODES: tuple[Callable[[bytes, int], None], ...] = (
    _streams(b""),
    _streams(samples.start()),
    _streams(samples.start(samples.PV) + samples.p2m_frames()),
    _streams(samples.start(samples.HVM, 2)),
    _streams(samples.start(samples.PV, 2)),
    _streams(samples.start(), colo=True),
    _epochs(GuestType.PVH),
    _epochs(GuestType.HVM),
    _epochs(GuestType.PV),
    _preambles,
    _contexts,
)


def seeds() -> Iterator[bytes]:
    """Whole inputs for every mode."""
    for stream in [*samples.WHOLE.values(), *samples.OPEN.values(), samples.xl_header(b"x=1", 2), samples.start()]:
        yield b"\x00\x05" + compact(stream)
        for mode, prefix in enumerate((samples.start(), samples.start(samples.PV) + samples.p2m_frames()), 1):
            if stream.startswith(prefix):
                yield bytes([mode, 200]) + compact(stream[len(prefix) :])
    yield b"\x03\xff" + compact(samples.hvm_plain(2)[len(samples.start(samples.HVM, 2)) :])
    yield b"\x04\xff" + compact(samples.pv_plain(2)[len(samples.start(samples.PV, 2)) :])
    yield b"\x05\xff" + compact(samples.colo()[len(samples.start()) :])
    ends = samples.CHECKPOINT + samples.CHECKPOINT_END
    yield b"\x06\x01" + compact(samples.page_data([(0, 1), (0xE, 3)]) + samples.hvm_state() + ends)
    yield b"\x07\x01" + compact(samples.hvm_state() + samples.CHECKPOINT + samples.emulator() + samples.CHECKPOINT_END)
    yield b"\x08\x01" + compact(samples.p2m_frames() + samples.page_data([(9, 1)]) + samples.pv_state(2) + ends)
    yield b"\x09\x01" + compact(samples.start())
    yield b"\x0a\x01" + compact(samples.hvm_blob())


def main() -> None:
    """Fuzz with the seeds, or run the inputs that are named."""
    named = any(not argument.startswith("-") for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="stream-seeds-") as folder:
        arguments = list(sys.argv)
        if not named:
            for number, seed in enumerate(seeds()):
                Path(folder, f"{number:03}").write_bytes(seed)
            arguments += [folder, "-max_len=8192", "-timeout=20"]
        atheris.Setup(arguments, check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
