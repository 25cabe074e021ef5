"""The preamble: its bytes, its parser, and the new name."""

from __future__ import annotations

import json

import pytest
from streams import samples

from remus_agent.errors import ConfigError, StreamError
from remus_agent.protocol.stream import constants as c
from remus_agent.protocol.stream import headers, records, writer
from remus_agent.protocol.stream.preamble import parse_preamble, renamed

CONFIG = '{\n  "c_info": { "type": "pvh", "name" : "redis1", "uuid": "u" },\n  "b_info": {"name": "other"}}\n'
CPUID = bytes(range(48))
MSR = bytes(range(16))
PREAMBLE = writer.preamble(CONFIG, (4, 17), CPUID, MSR)


def with_config(config: str | bytes) -> bytes:
    return writer.preamble(config, (4, 17), CPUID, MSR)


def test_preamble_bytes() -> None:
    config = CONFIG.encode() + b"\0"
    assert (
        b"".join(
            (
                b"Xen saved domain, xl format\n \0 \r\x04\x03\x02\x01\x03\0\0\0\0\0\0\0",
                (len(config) + 4).to_bytes(4, "little"),
                len(config).to_bytes(4, "little"),
                config,
                b"LibxlFmt\0\0\0\x02\0\0\0\0",
                b"\x01\0\0\0\0\0\0\0",
                b"\xff\xff\xff\xff\xff\xff\xff\xffXENF\0\0\0\x03\0\0\0\0\0\0\0\0",
                b"\x02\0\0\0\x0c\0\0\0\x04\0\0\0\x11\0\0\0",
                b"\x11\0\0\0\x30\0\0\0" + CPUID,
                b"\x12\0\0\0\x10\0\0\0" + MSR,
                b"\x10\0\0\0\0\0\0\0",
            )
        )
        == PREAMBLE
    )


def test_preamble_is_read() -> None:
    preamble = parse_preamble(PREAMBLE)
    assert preamble.config == json.loads(CONFIG)
    assert (preamble.name, preamble.xen, preamble.version) == ("redis1", (4, 17), 3)
    assert (preamble.cpuid, preamble.msr) == (CPUID, MSR)


@pytest.mark.parametrize("name", ["redis1--incoming", "r", 'quo"te\\', "grün"])
def test_renamed_changes_only_the_name_and_the_lengths(name: str) -> None:
    expected = with_config(CONFIG.replace('"redis1"', json.dumps(name)))
    assert renamed(PREAMBLE, name) == expected
    assert parse_preamble(expected).name == name
    assert renamed(expected, "redis1") == PREAMBLE


def test_renamed_finds_an_escaped_key_and_keeps_foreign_text() -> None:
    config = '{"a":"c_info","z":"\u00fc\U0001f600","\\u0063_info":{"n":[1,{"name":2}],"name":"old"}}'
    assert renamed(with_config(config), "new") == with_config(config.replace('"old"', '"new"'))


def test_renamed_keeps_what_follows_the_configuration() -> None:
    start = len(headers.pack_xl_header(CONFIG.encode()))
    data = headers.pack_xl_header(CONFIG.encode(), trailing=b"later", optional_flags=9) + PREAMBLE[start:]
    changed = renamed(memoryview(data), "other")
    assert changed.endswith(b"\0later" + PREAMBLE[start:])
    assert changed[40] == 9


def test_a_name_that_no_domain_can_have_is_read_and_can_be_replaced() -> None:
    found = parse_preamble(with_config('{"c_info":{"name":"/"}}'))
    assert found.name == "/"
    assert parse_preamble(renamed(with_config('{"c_info":{"name":"/"}}'), "web1")).name == "web1"


def test_the_preamble_of_a_pv_guest() -> None:
    data = samples.start(samples.PV)
    preamble = parse_preamble(data)
    assert (preamble.name, preamble.guest) == ("g", c.DomainType.PV)
    assert parse_preamble(PREAMBLE).guest is c.DomainType.HVM
    changed = renamed(data, "g--incoming")
    assert parse_preamble(changed).name == "g--incoming"
    assert renamed(changed, "g") == data
    assert data.startswith(writer.opening(samples.CONFIG))


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", "a\nb", "x" * 256])
def test_names_that_no_domain_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name"):
        renamed(PREAMBLE, name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b'{"c_info":{"name":"\xff"}}', "not JSON"),
        ('{"c_info":{"name":NaN}}', "not JSON; expected JSON, found NaN"),
        ('{"n":' + "1" * 5000 + "}", "not JSON"),
        ("[]", "no c_info.name"),
        ("{}", "no c_info.name"),
        ('{"c_info":[]}', "no c_info.name"),
        ('{"c_info":{"name":7}}', "no c_info.name"),
    ],
)
def test_configurations_that_are_refused(config: str | bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        parse_preamble(with_config(config))


@pytest.mark.parametrize("config", ['{"c_info":{"name":"a","name":"b"}}', '{"c_info":{},"c_info":{"name":"b"}}'])
def test_ambiguous_names_are_not_replaced(config: str) -> None:
    with pytest.raises(StreamError, match="2 members"):
        renamed(with_config(config), "c")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated in the xl header: 48 of its 48 bytes are missing"),
        (PREAMBLE[:60], "truncated in the configuration in the xl header"),
        (PREAMBLE[:-8], "truncated before memory"),
        (PREAMBLE[:-1], "truncated in a record header: 1 of its 8 bytes"),
        (PREAMBLE + b"x", "bytes after the preamble's STATIC_DATA_END; expected none, found 1"),
        (PREAMBLE + writer.tsc_info(0, 0, 0, 0), "expected none, found 32"),
        (PREAMBLE[:-32] + PREAMBLE[-8:], "other records than it must; .*, found X86_CPUID_POLICY, STATIC_DATA_END"),
        (
            PREAMBLE[:-8] + PREAMBLE[-32:],
            "libxc's X86_MSR_POLICY twice in a stream",
        ),
        (PREAMBLE.replace(b"XENF\0\0\0\x03", b"XENF\0\0\0\x02")[:-88], "version 2 has no STATIC_DATA_END"),
        (PREAMBLE.replace(b"\x02\0\0\0\x0c\0", b"\x01\0\0\0\x0c\0"), "of a PV guest ends without its X86_PV_INFO"),
        (
            samples.start(samples.PV, static=samples.policies() + samples.pv_info() + records.pack_record(0x10)),
            "expected X86_PV_INFO, X86_CPUID_POLICY, X86_MSR_POLICY, STATIC_DATA_END, found X86_CPUID_POLICY",
        ),
        (PREAMBLE[:-8] + records.pack_record(0x80000001), "truncated before memory"),
        (PREAMBLE.replace(b"\x01\x03\0\0\0", b"\x01\x02\0\0\0"), "is not JSON"),
        (PREAMBLE.replace(b"\0\0\0\0\0\xff", b"\0\0\0\0\0\xfe"), "legacy"),
    ],
)
def test_preambles_that_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        parse_preamble(data)


def test_optional_records_in_a_preamble_are_ignored() -> None:
    extra = records.pack_record(0x80000009, b"later")
    assert parse_preamble(PREAMBLE[:-8] + extra + PREAMBLE[-8:]).msr == MSR


@pytest.mark.parametrize(("cpuid", "msr"), [(b"", MSR), (CPUID, b""), (CPUID[:-1], MSR), (CPUID, MSR + b"x")])
def test_policies_a_receiver_would_refuse_are_not_written(cpuid: bytes, msr: bytes) -> None:
    with pytest.raises(StreamError, match="policy of"):
        writer.preamble(CONFIG, (4, 17), cpuid, msr)
