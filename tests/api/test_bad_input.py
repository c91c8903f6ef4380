"""Whatever comes in is answered with its status and code, and the server serves on."""

import io
import json
import re
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.store import TableStore
from tests.api.samples import CONTRACT, ROWS
from tests.api.wire import (
    JSON,
    NPY,
    NPZ,
    OCTETS,
    PROBLEM,
    Sent,
    npy,
    npy_header,
    npy_of,
    npz,
    zipped,
)
from tests.world import Path_, publish, serving

LOOKUP = "/v1/tables/padded/lookup"
IDS = np.array([5, 2, 3])
OOV = "out_of_vocabulary"
INVALID = "invalid_request"
BODY = "EMBEDDING_MAX_BODY_BYTES"
MAX_IDS = "EMBEDDING_MAX_IDS"
RESPONSE = "EMBEDDING_MAX_RESPONSE_BYTES"
LONG = "9" * 5000


@dataclass(frozen=True)
class Bad:
    """A request that is refused: with which code, which `field` it names, and what its text must hold."""

    name: str
    sent: Sent
    code: str
    place: str | None = None
    says: tuple[str, ...] = ()
    path: str = LOOKUP
    headers: Mapping[str, str] = field(default_factory=dict)


def text(name: str, body: str | bytes, code: str, place: str | None = None, *says: str, path: str = LOOKUP) -> Bad:
    content = body.encode() if isinstance(body, str) else body
    return Bad(name, Sent(content, JSON), code, place, says, path)


def ids(name: str, value: str, code: str = INVALID, place: str | None = "ids[0]", *says: str) -> Bad:
    """`value` is the JSON text of `ids`."""
    return text(f"ids: {name}", f'{{"ids": {value}}}', code, place, *says)


def outside(name: str, value: str, index: str, digits: str) -> Bad:
    """An integer that no table has is named with its digits, in the raw text."""
    return ids(name, value, OOV, None, f'"errors":[{{"index":{index},"id":{digits}}}]', f"id {digits} at ")


def option(name: str, value: str) -> Bad:
    return text(f"{name}: {value}", f'{{"ids": [5], "{name}": {value}}}', INVALID, name)


def with_field(what: str, name: str, value: str, place: str, others: str = '"pooling": "sum"') -> Bad:
    return text(f"{name}: {what}", f'{{"ids": [[5, 2]], {others}, "{name}": {value}}}', INVALID, place)


def parameter(name: str, value: str, code: str = INVALID, place: str | None = None, content: bytes = b"") -> Bad:
    body = content or struct.pack("<2q", 5, 2)
    return Bad(f"query {name}={value[:24]}", Sent(body, OCTETS, {name: value}), code, place or name)


def binary(name: str, media: str, content: bytes, code: str, place: str | None, *says: str, **params: str) -> Bad:
    return Bad(f"{media[14:]}: {name}", Sent(content, media, params), code, place, says)


def headed(name: str, code: str, content: bytes = b'{"ids": [5]}', *says: str, **headers: str) -> Bad:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Bad(name, Sent(content, None), code, None, says, headers=named)


def at(path: str, code: str, *says: str) -> Bad:
    return Bad(f"path {path}", Sent(b'{"ids": [5]}', JSON), code, None, says, path=path)


# Damaged containers


def patched(data: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    """`data` with bytes replaced at an offset behind every `marker`."""
    changed, start = bytearray(data), data.find(marker)
    while start >= 0:
        changed[start + offset : start + offset + len(value)] = value
        start = data.find(marker, start + 1)
    return bytes(changed)


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
GOOD_NPZ = npz(ids=IDS)
ENCRYPTED = patched(patched(GOOD_NPZ, LOCAL, 6, b"\x01"), CENTRAL, 8, b"\x01")
BAD_CRC = patched(patched(GOOD_NPZ, LOCAL, 14, b"abcd"), CENTRAL, 16, b"abcd")
UNKNOWN_METHOD = patched(patched(GOOD_NPZ, LOCAL, 8, b"\x63"), CENTRAL, 10, b"\x63")
FAR_OFFSET = patched(GOOD_NPZ, END, 16, struct.pack("<I", 1 << 20))
ZEROS = np.zeros(2_000_000, dtype=np.int64)
BOMB = zipped({"ids.npy": npy(ZEROS)}, zipfile.ZIP_DEFLATED)
TWO_HALVES = zipped(
    {"ids.npy": npy(np.zeros(5000, np.int64)), "mask.npy": npy(np.zeros(40_000, np.bool_))}, zipfile.ZIP_DEFLATED
)


def corrupt(compression: int) -> bytes:
    """An npz whose compressed bytes are noise."""
    data = zipped({"ids.npy": npy(IDS)}, compression)
    start = 30 + len("ids.npy") + 9  # the local header, and what LZMA's own header needs
    return data[:start] + bytes(byte ^ 0x5A for byte in data[start : start + 20]) + data[start + 20 :]


def twice() -> bytes:
    with warnings.catch_warnings(action="ignore"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("ids.npy", npy(IDS))
            archive.writestr("ids.npy", npy(IDS))
        return file.getvalue()


assert len(BOMB) < 65_536 < ZEROS.nbytes
assert len(TWO_HALVES) < 65_536


IDS_IN_JSON = [
    outside("negative", "[[5, 2], [-1]]", "[1,0]", "-1"),
    outside("one too many", "[5, 7]", "[1]", "7"),
    outside("huge", "[2147483648]", "[0]", "2147483648"),
    outside("2**53 + 1", "[9007199254740993]", "[0]", "9007199254740993"),
    outside("2**63 - 1", f"[{2**63 - 1}]", "[0]", str(2**63 - 1)),
    outside("2**63", f"[{2**63}]", "[0]", str(2**63)),
    outside("-2**63", f"[{-(2**63)}]", "[0]", str(-(2**63))),
    outside("-2**63 - 1", f"[{-(2**63) - 1}]", "[0]", str(-(2**63) - 1)),
    outside("2**64 - 1", f"[{2**64 - 1}]", "[0]", str(2**64 - 1)),
    outside("2**64", f"[{2**64}]", "[0]", str(2**64)),
    outside("2**64 + 5, which would wrap to a row", f"[{2**64 + 5}]", "[0]", str(2**64 + 5)),
    outside("2**70", f"[[5], [2, {2**70}]]", "[1,1]", str(2**70)),
    outside("2**70 + 1", f"[{2**70 + 1}]", "[0]", str(2**70 + 1)),
    outside("-2**70", f"[{-(2**70)}]", "[0]", str(-(2**70))),
    outside("309 digits, beyond a double", f"[5, {'9' * 309}]", "[1]", "9" * 309),
    outside("5,000 digits", f"[5, {LONG}]", "[1]", LONG),
    outside("minus 5,000 digits", f"[-{LONG}]", "[0]", f"-{LONG}"),
    ids("fraction", "[1.5]"),
    ids("3.0", "[3.0]", INVALID, "ids[0]", "integer"),
    ids("-0.0", "[-0.0]"),
    ids("1e2", "[1e2]"),
    ids("1E0", "[[5], [1E0]]", INVALID, "ids[1][0]"),
    ids("1e400", "[1e400]"),
    ids("a fraction beside 2**70", f"[{2**70}, 1.0]", INVALID, "ids[1]"),
    ids("true", "[true]"),
    ids("false", "[5, false]", INVALID, "ids[1]"),
    ids("a string", '["5"]'),
    ids("an empty string", '[5, ""]', INVALID, "ids[1]"),
    ids("null", "[null]"),
    ids("an object", "[5, {}]", INVALID, "ids[1]"),
    ids("NaN", "[NaN]", "invalid_json", None),
    ids("Infinity", "[Infinity]", "invalid_json", None),
    ids("-Infinity", "[-Infinity]", "invalid_json", None),
    ids("a leading zero", "[05]", "invalid_json", None),
    ids("a plus sign", "[+5]", "invalid_json", None),
    ids("hexadecimal", "[0x5]", "invalid_json", None),
    ids("no array", "5", INVALID, "ids"),
    ids("null instead of an array", "null", INVALID, "ids"),
    ids("true instead of an array", "true", INVALID, "ids"),
    ids("a string instead of an array", '"5"', INVALID, "ids"),
    ids("an object instead of an array", '{"0": 5}', INVALID, "ids"),
    ids("2**70 instead of an array", str(2**70), INVALID, "ids"),
    ids("numbers among arrays", "[[5], 2]", INVALID, "ids[1]"),
    ids("arrays among numbers", "[5, [2]]", INVALID, "ids[0]"),
    ids("null among arrays", "[[5], null]", INVALID, "ids[1]"),
    ids("ragged third axis", "[[[5, 2], [3]]]", INVALID, "ids[0][1]"),
    ids("ragged second axis of three", "[[[5]], [[2], [3]]]", INVALID, "ids[1]"),
    ids("a depth that differs", "[[5], [[2]]]", INVALID, "ids[0][0]"),
    ids("33 deep", "[" * 33 + "5" + "]" * 33, INVALID, "ids"),
    ids("1,000 deep", "[" * 1000 + "]" * 1000, INVALID, "ids"),
    ids("20,000 deep", "[" * 20_000 + "]" * 20_000, "invalid_json", None),
    ids("20,000 open brackets", "[" * 20_000, "invalid_json", None),
    ids("101 of them", json.dumps([5] * 101), "request_too_large", None, MAX_IDS, '"allowed":100'),
    ids("101 of them, in arrays", json.dumps([[5]] * 101), "request_too_large", None, MAX_IDS),
    ids("101 of them, outside the table", json.dumps([9] * 101), "request_too_large", None, MAX_IDS),
]

STRUCTURE = [
    text("no body", "", "invalid_json"),
    text("white space", " \n", "invalid_json"),
    text("an array", "[5]", INVALID),
    text("null", "null", INVALID),
    text("a number", "5", INVALID),
    text("a string", '"ids"', INVALID),
    text("neither ids nor tokens", "{}", INVALID, "ids", "tokens"),
    text("both ids and tokens", '{"ids": [5], "tokens": ["river"]}', INVALID, "ids", "tokens"),
    text("an unknown field", '{"ids": [5], "normalise": true}', INVALID, "normalise", "normalise"),
    text("an unknown field that is empty", '{"ids": [5], "": 1}', INVALID, ""),
    text("a field in capitals", '{"IDS": [5]}', INVALID, "IDS"),
    text("a table in the body", '{"table": "padded", "ids": [5]}', INVALID, "table"),
    text("a query name as a field", '{"ids": [5], "shape": "1"}', INVALID, "shape"),
    text("a trailing comma", '{"ids": [5,]}', "invalid_json"),
    text("no closing brace", '{"ids": [5]', "invalid_json"),
    text("text behind the body", '{"ids": [5]} x', "invalid_json"),
    text("two bodies", '{"ids": [5]}{"ids": [5]}', "invalid_json"),
    text("single quotes", "{'ids': [5]}", "invalid_json"),
    text("a comment", '{"ids": [5] /* five */}', "invalid_json"),
    text("a NUL", b'{"ids": [5]}\0', "invalid_json"),
    text("a bare word", "ids", "invalid_json"),
    text("bad UTF-8 in a string", b'{"tokens": ["\xff"]}', "invalid_json"),
    text("Latin-1 in a string", '{"tokens": ["über"]}'.encode("latin-1"), "invalid_json"),
    text("an overlong UTF-8 sequence", b'{"tokens": ["\xc0\xaf"]}', "invalid_json"),
    text("a surrogate as UTF-8", b'{"tokens": ["\xed\xa0\x80"]}', "invalid_json"),
    text("a lone high surrogate", r'{"tokens": ["\ud800"]}', "invalid_json"),
    text("a lone low surrogate", r'{"tokens": ["river", "\udc00x"]}', "invalid_json"),
    text("UTF-8 with a byte order mark", b'\xef\xbb\xbf{"ids": [5]}', "invalid_json"),
    text("UTF-16", '{"ids": [5]}'.encode("utf-16"), "invalid_json"),
    text("a raw line break in a string", '{"tokens": ["a\nb"]}', "invalid_json"),
    text("an unknown escape", r'{"tokens": ["\x"]}', "invalid_json"),
    text("an object 20,000 deep", '{"ids":' * 20_000 + "1" + "}" * 20_000, "request_too_large", None, BODY),
    text("an object 5,000 deep", '{"ids":' * 5_000 + "1" + "}" * 5_000, "invalid_json"),
    text("depth in an unknown field", '{"ids": [5], "x": ' + "[" * 900 + "]" * 900 + "}", INVALID, "x"),
    text("depth in weights beside 2**70", f'{{"ids": [{2**70}], "pooling": "sum", "weights": {"[" * 33 + "]" * 33}}}',
         INVALID, "weights"),
]  # fmt: skip

TOKENS = [
    text("tokens: unknown", '{"tokens": [["river"], ["zzz"]]}', OOV, None, '{"index":[1,0],"token":"zzz"}'),
    text("tokens: unknown and not ASCII", '{"tokens": ["ö\\u0000"]}', OOV, None, '"index":[0]'),
    text("tokens: case matters", '{"tokens": ["River"]}', OOV, None, '"token":"River"'),
    text("tokens: empty", '{"tokens": [""]}', OOV, None, '"token":""'),
    text("tokens: an integer", '{"tokens": ["river", 5]}', INVALID, "tokens[1]"),
    text("tokens: null", '{"tokens": [[null]]}', INVALID, "tokens[0][0]"),
    text("tokens: true", '{"tokens": [true]}', INVALID, "tokens[0]"),
    text("tokens: a bare string", '{"tokens": "river"}', INVALID, "tokens"),
    text("tokens: mixed", '{"tokens": [["river"], "zebra"]}', INVALID, "tokens[1]"),
    text("tokens: 101 of them", json.dumps({"tokens": ["river"] * 101}), "request_too_large", None, MAX_IDS),
    text("tokens: no vocabulary", '{"tokens": ["river"]}', "no_vocabulary", None, '"table":"plain"',
         path="/v1/tables/plain/lookup"),
    text("tokens: none, no vocabulary", '{"tokens": []}', "no_vocabulary", path="/v1/tables/plain/lookup"),
]  # fmt: skip

OPTIONS = [
    option("length", "0"),
    option("length", "-1"),
    option("length", "1.0"),
    option("length", '"2"'),
    option("length", "true"),
    option("length", "null"),
    option("length", "[2]"),
    option("padding", '"left"'),
    option("padding", "null"),
    option("truncation", '"POST"'),
    option("on_oov", '"wrap"'),
    option("on_oov", "[]"),
    option("masked", "true"),
    option("pooling", '"average"'),
    option("pooling", '["sum"]'),
    option("normalize", '"true"'),
    option("normalize", "1"),
    option("flatten", "null"),
    option("dtype", '"int8"'),
    option("dtype", '"float64"'),
    option("encoding", '"hex"'),
    option("encoding", "{}"),
    text("flatten with pooling", '{"ids": [5], "flatten": true, "pooling": "sum"}', INVALID, "flatten"),
    text("longer than length", '{"ids": [[5], [5, 2, 3]], "length": 2}', INVALID, "ids[1]", "3", "2"),
    text("longer than length, three axes", '{"ids": [[[5, 2]]], "length": 1}', INVALID, "ids[0][0]"),
    text("no unknown row", '{"ids": [5], "on_oov": "unk"}', "no_unknown_row", None, '"table":"plain"',
         path="/v1/tables/plain/lookup"),
    text("beyond float16", '{"ids": [[0, 1]], "dtype": "float16"}', "not_representable", None, "[0,1,0]",
         path="/v1/tables/large/lookup"),
    text("a sum beyond float32", '{"ids": [[0, 0], [2, 2]], "pooling": "sum"}', "not_representable", None, "[1,0]",
         path="/v1/tables/large/lookup"),
]  # fmt: skip

MASKS_AND_WEIGHTS = [
    with_field("too short", "mask", "[[true]]", "mask"),
    with_field("flat", "mask", "[true, true]", "mask"),
    with_field("too deep", "mask", "[[[true, true]]]", "mask"),
    with_field("ragged differently", "mask", "[[true], [true]]", "mask"),
    with_field("two", "mask", "[[true, 2]]", "mask[0][1]"),
    with_field("minus one", "mask", "[[-1, 1]]", "mask[0][0]"),
    with_field("a fraction", "mask", "[[1.0, 0]]", "mask[0][0]"),
    with_field("a string", "mask", '[["true", true]]', "mask[0][0]"),
    with_field("null", "mask", "[[null, true]]", "mask[0][0]"),
    with_field("2**70", "mask", f"[[1, {2**70}]]", "mask[0][1]"),
    with_field("null instead of an array", "mask", "null", "mask"),
    with_field("true instead of an array", "mask", "true", "mask"),
    with_field("33 deep", "mask", "[" * 33 + "]" * 33, "mask"),
    with_field("too short", "weights", "[[1]]", "weights"),
    with_field("flat", "weights", "[1, 1]", "weights"),
    with_field("negative", "weights", "[[1, -0.5]]", "weights[0][1]"),
    with_field("beyond a double", "weights", "[[1, 1e400]]", "weights[0][1]"),
    with_field("an integer beyond a double", "weights", f"[[1, 1{'0' * 400}]]", "weights[0][1]"),
    with_field("an integer of 5,000 digits", "weights", f"[[1, 1{'0' * 5000}]]", "weights[0][1]"),
    headed("an Accept of 5,000 bytes", "not_acceptable", Accept="a/b," * 1250),
    headed("a Content-Type of 5,000 bytes", "unsupported_media_type", Content_Type="application/json;" + "a" * 5000),
    text(
        "sequences of sequences without an id",
        f'{{"ids": [{"[[]]," * 200}[[]]]}}',
        "request_too_large",
        None,
        "EMBEDDING_MAX_IDS",
    ),
    with_field("true", "weights", "[[true, 1]]", "weights[0][0]"),
    with_field("a string", "weights", '[[1, "1"]]', "weights[0][1]"),
    with_field("null", "weights", "[[1, null]]", "weights[0][1]"),
    with_field("a number instead of an array", "weights", "1", "weights"),
    with_field("with pooling none", "weights", "[[1, 1]]", "weights", '"pooling": "none"'),
    with_field("with pooling max", "weights", "[[1, 1]]", "weights", '"pooling": "max"'),
    with_field("without pooling", "weights", "[[1, 1]]", "weights", '"masked": "keep"'),
    text("weights: NaN", '{"ids": [5], "pooling": "sum", "weights": [NaN]}', "invalid_json"),
]

QUERIES = [
    parameter("length", "0"),
    parameter("length", "-3"),
    parameter("length", "1.5"),
    parameter("length", "1e3"),
    parameter("length", "three"),
    parameter("length", ""),
    parameter("length", "٣"),
    parameter("length", LONG),
    parameter("flatten", "yes"),
    parameter("normalize", "2"),
    parameter("normalize", ""),
    parameter("pooling", "average"),
    parameter("on_oov", "wrap"),
    parameter("encoding", "hex"),
    parameter("dtype", "float64"),
    parameter("masked", "Keep"),
    parameter("padding", "left"),
    parameter("truncation", "none"),
    parameter("ids_dtype", "int16"),
    parameter("ids_dtype", ">i8"),
    parameter("shape", "3"),
    parameter("shape", "2,2"),
    parameter("shape", "0"),
    parameter("shape", "-1"),
    parameter("shape", "2,-1"),
    parameter("shape", "2,"),
    parameter("shape", "1, 2"),
    parameter("shape", "1x2"),
    parameter("shape", "(2,)"),
    parameter("shape", ""),
    parameter("shape", "1e0,2"),
    parameter("shape", ",".join(["1"] * 33)),
    parameter("shape", LONG),
    parameter("shape", "٢"),
    parameter("ids", "5"),
    parameter("mask", "1,1"),
    parameter("weights", "1,1"),
    parameter("tokens", "river"),
    parameter("normalise", "true"),
    parameter("Length", "3"),
    parameter("", "3"),
    parameter("\U0001f42d", "1"),
    Bad("query: ids_dtype with npy", Sent(npy(IDS), NPY, {"ids_dtype": "int32"}), INVALID, "ids_dtype"),
    Bad("query: shape with npz", Sent(GOOD_NPZ, NPZ, {"shape": "3"}), INVALID, "shape"),
    Bad("query: beside JSON", Sent(b'{"ids": [5]}', JSON, {"pooling": "sum"}), INVALID, "pooling"),
    Bad("query: unknown beside JSON", Sent(b'{"ids": [5]}', JSON, {"x": ""}), INVALID, "x"),
    Bad("query: given twice", Sent(npy(IDS), NPY), INVALID, "length", path=f"{LOOKUP}?length=3&length=4"),
    Bad("query: 65 of them", Sent(npy(IDS), NPY), INVALID, path=LOOKUP + "?" + "&".join(["length=3"] * 65)),
    Bad("query: bad UTF-8", Sent(npy(IDS), NPY), INVALID, path=f"{LOOKUP}?%ff%fe=1"),
    Bad("query: flatten with pooling", Sent(npy(IDS), NPY, {"flatten": "1", "pooling": "sum"}), INVALID, "flatten"),
    Bad("query: longer than length", Sent(npy(IDS), NPY, {"length": "2"}), INVALID, "ids"),
]

RAW = [
    binary("seven bytes", OCTETS, b"1234567", INVALID, "ids"),
    binary("six bytes of int32", OCTETS, b"123456", INVALID, "ids", ids_dtype="int32"),
    binary("negative", OCTETS, struct.pack("<2q", 5, -1), OOV, None, '{"index":[1],"id":-1}'),
    binary("negative int32", OCTETS, struct.pack("<2i", 5, -2), OOV, None, '{"index":[1],"id":-2}', ids_dtype="int32"),
    binary("-2**63", OCTETS, struct.pack("<q", -(2**63)), OOV, None, f'"id":{-(2**63)}'),
    binary("2**63 - 1", OCTETS, struct.pack("<q", 2**63 - 1), OOV, None, f'"id":{2**63 - 1}'),
    binary("big-endian ids", OCTETS, struct.pack(">q", 5), OOV, None, f'"id":{5 << 56}'),
    binary("in a shape", OCTETS, struct.pack("<4q", 5, 2, 3, 7), OOV, None, '{"index":[1,1],"id":7}', shape="2,2"),
    binary("101 of them", OCTETS, struct.pack("<q", 5) * 101, "request_too_large", None, MAX_IDS),
    # Bytes of nothing may not ask for more sequences than ids: 30,000,000 of them once took 42 seconds.
    binary("101 empty sequences", OCTETS, b"", "request_too_large", None, MAX_IDS, shape="101,0"),
    binary("JSON", OCTETS, b'{"ids": [5]}', INVALID, "ids"),
    binary("an empty body of a huge shape", OCTETS, b"", "request_too_large", None, RESPONSE,
           shape="0,999999999999999999"),
    binary("an empty body of many empty sequences", OCTETS, b"", "request_too_large", None,
           shape="999999999999999999,0"),
    binary("an empty body of many empty sequences, pooled", OCTETS, b"", "request_too_large", None,
           shape="999999999999999999,0", pooling="sum"),
]  # fmt: skip

IN_NPY = [
    binary("no body", NPY, b"", INVALID, "ids"),
    binary("JSON", NPY, b'{"ids": [5]}', INVALID, "ids"),
    binary("an npz", NPY, GOOD_NPZ, INVALID, "ids"),
    binary("the magic alone", NPY, b"\x93NUMPY", INVALID, "ids"),
    binary("cut in the header", NPY, npy(IDS)[:40], INVALID, "ids"),
    binary("cut in the data", NPY, npy(IDS)[:-1], INVALID, "ids"),
    binary("trailing bytes", NPY, npy(IDS) + b"\0", INVALID, "ids"),
    binary("another format version", NPY, b"\x93NUMPY\x03\x00" + npy(IDS)[8:], INVALID, "ids"),
    binary("pickled objects", NPY, npy(np.array([5, "x"], dtype=object)), INVALID, "ids", "pickle"),
    binary("a header that promises pickles", NPY, npy_of(npy_header("(1,)", "'|O'"), b"\0" * 8), INVALID, "ids"),
    binary("pickles within a structure", NPY, npy_of(npy_header("(1,)", "[('a', '|O')]"), b"\0" * 8), INVALID, "ids"),
    binary("a header that promises more", NPY, npy_of(npy_header("(4,)"), b"\0" * 24), INVALID, "ids"),
    binary("a header that promises less", NPY, npy_of(npy_header("(2,)"), b"\0" * 24), INVALID, "ids"),
    binary("a huge shape", NPY, npy_of(npy_header(f"({10**18},)"), b"\0" * 24), INVALID, "ids"),
    binary("a shape of 2**70", NPY, npy_of(npy_header(f"({2**70},)")), INVALID, "ids"),
    binary("a shape of 0 times 2**70", NPY, npy_of(npy_header(f"(0, {2**70})")), INVALID, "ids"),
    binary("a shape of 0 times 2**62", NPY, npy_of(npy_header(f"(0, {2**62})")), INVALID, "ids"),
    binary("a shape of 0 times 2**40", NPY, npy_of(npy_header(f"(0, {2**40})")), "request_too_large", None, RESPONSE),
    binary("a negative shape", NPY, npy_of(npy_header("(-1,)")), INVALID, "ids"),
    binary("a shape with True", NPY, npy_of(npy_header("(True,)"), b"\0" * 8), INVALID, "ids"),
    binary("a shape with a fraction", NPY, npy_of(npy_header("(1.0,)"), b"\0" * 8), INVALID, "ids"),
    binary("a shape that is a list", NPY, npy_of(npy_header("[1]"), b"\0" * 8), INVALID, "ids"),
    binary("33 axes", NPY, npy(np.full((1,) * 33, 5)), INVALID, "ids"),
    binary("70 axes", NPY, npy_of(npy_header(f"({'1, ' * 70})"), b"\0" * 8), INVALID, "ids"),
    binary("a header without an end", NPY, npy_of("{'descr': '<i8', 'shape': (1,), "), INVALID, "ids"),
    binary("a header with an open bracket", NPY, npy_of("{'descr': '<i8', 'shape': ("), INVALID, "ids"),
    binary("a header with an open string", NPY, npy_of("{'descr': '<i8"), INVALID, "ids"),
    binary("a header of open brackets", NPY, npy_of("(" * 5000), INVALID, "ids"),
    binary("a header that calls", NPY, npy_of("__import__('os').getcwd()"), INVALID, "ids"),
    binary("a header without a shape", NPY, npy_of("{'descr': '<i8', 'fortran_order': False}"), INVALID, "ids"),
    binary("a header with a NUL", NPY, npy_of("{'descr': '<i8',\0}"), INVALID, "ids"),
    binary("a long header", NPY, npy_of(npy_header("(0,)") + " " * 20_000), INVALID, "ids"),
    binary("an unknown dtype", NPY, npy_of(npy_header("(1,)", "'<q99'"), b"\0" * 8), INVALID, "ids"),
    binary("0-d", NPY, npy(np.array(5)), INVALID, "ids"),
    binary("float64", NPY, npy(np.array([5.0])), INVALID, "ids", "float64"),
    binary("NaN", NPY, npy(np.array([np.nan])), INVALID, "ids"),
    binary("booleans", NPY, npy(np.array([True])), INVALID, "ids", "bool"),
    binary("strings", NPY, npy(np.array(["5"])), INVALID, "ids"),
    binary("complex", NPY, npy(np.array([5j])), INVALID, "ids"),
    binary("dates", NPY, npy(np.array([5], dtype="datetime64[s]").astype("<M8[s]")), INVALID, "ids"),
    binary("a structure", NPY, npy(np.zeros(1, dtype=[("a", "<i8")])), INVALID, "ids"),
    binary("strings of no length", NPY, npy_of(npy_header(f"({2**70},)", "'|S0'")), INVALID, "ids"),
    binary("negative int8", NPY, npy(np.array([[5, -1]], dtype="i1")), OOV, None, '{"index":[0,1],"id":-1}'),
    binary("255 as uint8", NPY, npy(np.array([255], dtype="u1")), OOV, None, '"id":255'),
    binary("2**63 as uint64", NPY, npy(np.array([5, 2**63], dtype="u8")), OOV, None, f'[1],"id":{2**63}'),
    binary("2**64 - 1 as uint64", NPY, npy(np.array([2**64 - 1], dtype=">u8")), OOV, None, f'"id":{2**64 - 1}'),
    binary("in Fortran order", NPY, npy(np.array([[5, 2], [9, 3]], order="F")), OOV, None, '[1,0],"id":9'),
    binary("101 empty sequences", NPY, npy(np.zeros((101, 0), np.int64)), "request_too_large", None, MAX_IDS),
    binary("101 of them", NPY, npy(np.full(101, 5)), "request_too_large", None, MAX_IDS),
]


def archive(name: str, code: str, place: str | None, *says: str, **arrays: object) -> Bad:
    """An npz of `ids` and these arrays, pooled so that weights have a meaning."""
    members = {"ids": IDS, **{key: np.asarray(value) for key, value in arrays.items()}}
    return Bad(f"npz: {name}", Sent(npz(**members), NPZ, {"pooling": "sum"}), code, place, says)


IN_NPZ = [
    binary("no body", NPZ, b"", INVALID, None),
    binary("no zip", NPZ, b"nothing of a zip", INVALID, None),
    binary("an npy", NPZ, npy(IDS), INVALID, None),
    binary("an empty zip", NPZ, zipped({}), INVALID, "ids"),
    binary("cut", NPZ, GOOD_NPZ[:-30], INVALID, None),
    binary("cut at its front", NPZ, GOOD_NPZ[30:], INVALID, None),
    binary("a directory at an offset before the file", NPZ, FAR_OFFSET, INVALID, None),
    binary("encrypted", NPZ, ENCRYPTED, INVALID, None),
    binary("a wrong checksum", NPZ, BAD_CRC, INVALID, None),
    binary("an unknown compression", NPZ, UNKNOWN_METHOD, INVALID, None),
    binary("damaged deflate", NPZ, corrupt(zipfile.ZIP_DEFLATED), INVALID, None),
    binary("damaged bzip2", NPZ, corrupt(zipfile.ZIP_BZIP2), INVALID, None),
    binary("damaged LZMA", NPZ, corrupt(zipfile.ZIP_LZMA), INVALID, None),
    binary("a bomb", NPZ, BOMB, "request_too_large", None, BODY),
    binary("a bomb of two members", NPZ, TWO_HALVES, "request_too_large", None, BODY),
    binary("an unknown member", NPZ, npz(ids=IDS, extra=IDS), INVALID, "extra", "extra"),
    binary("no member ids", NPZ, npz(mask=IDS > 0), INVALID, "ids"),
    binary("a member twice", NPZ, twice(), INVALID, "ids"),
    binary("a member with and without its suffix", NPZ, zipped({"ids": npy(IDS), "ids.npy": npy(IDS)}), INVALID, "ids"),
    binary("a member of a folder", NPZ, zipped({"a/ids.npy": npy(IDS)}), INVALID, "a/ids"),
    binary("a member out of the folder", NPZ, zipped({"../ids.npy": npy(IDS)}), INVALID, "../ids"),
    binary("a name that is not ASCII", NPZ, zipped({"ü.npy": npy(IDS)}), INVALID, "ü"),
    binary("ids that are no npy", NPZ, zipped({"ids.npy": b"[5]"}), INVALID, "ids"),
    binary("a mask that is no npy", NPZ, zipped({"ids.npy": npy(IDS), "mask.npy": b"[1]"}), INVALID, "mask"),
    binary("offsets that are cut", NPZ, zipped({"ids.npy": npy(IDS), "offsets.npy": npy(np.array([0, 3]))[:-1]}),
           INVALID, "offsets"),
    binary("pickled ids", NPZ, npz(ids=np.array([5, None], dtype=object)), INVALID, "ids", "pickle"),
    binary("0-d ids", NPZ, npz(ids=np.array(5)), INVALID, "ids"),
    binary("float ids", NPZ, npz(ids=np.array([5.0])), INVALID, "ids"),
    binary("boolean ids", NPZ, npz(ids=np.array([True])), INVALID, "ids"),
    binary("101 ids", NPZ, npz(ids=np.full(101, 5)), "request_too_large", None, MAX_IDS),
    binary("100 empty sequences and one more", NPZ, npz(ids=IDS, offsets=np.array([0] * 101 + [3])),
           "request_too_large", None, MAX_IDS),
    binary("an id outside a ragged batch", NPZ, npz(ids=np.array([5, 2, 9]), offsets=np.array([0, 2, 3])), OOV, None,
           '{"index":[1,0],"id":9}'),
    archive("offsets that descend", INVALID, "offsets[2]", offsets=[0, 2, 1, 3]),
    archive("offsets that do not start at 0", INVALID, "offsets", offsets=[1, 3]),
    archive("offsets that end too soon", INVALID, "offsets", offsets=[0, 2]),
    archive("offsets that end too late", INVALID, "offsets", offsets=[0, 4]),
    archive("negative offsets", INVALID, "offsets", offsets=[-1, 3]),
    archive("a negative offset within", INVALID, "offsets[1]", offsets=[0, -1, 3]),
    archive("no offsets", INVALID, "offsets", offsets=np.array([], dtype=np.int64)),
    archive("fractional offsets", INVALID, "offsets", offsets=[0.0, 3.0]),
    archive("boolean offsets", INVALID, "offsets", offsets=[False, True]),
    archive("0-d offsets", INVALID, "offsets", offsets=3),
    archive("offsets of two axes", INVALID, "offsets", offsets=[[0, 3]]),
    archive("uint64 offsets that wrap", INVALID, "offsets[2]", offsets=np.array([0, 2**64 - 1, 3], dtype="u8")),
    archive("uint64 offsets of 2**63", INVALID, "offsets", str(2**63), offsets=np.array([0, 2**63], dtype="u8")),
    archive("offsets whose differences overflow", INVALID, "offsets[2]",
            offsets=np.array([0, 2**63 - 1, -(2**63), 3])),
    archive("offsets with ids of two axes", INVALID, "ids", ids=[[5, 2, 3]], offsets=[0, 3]),
    archive("a mask of another length", INVALID, "mask", mask=[True]),
    archive("a mask of another shape", INVALID, "mask", mask=[[True, True, True]]),
    archive("a 0-d mask", INVALID, "mask", mask=True),
    archive("a mask with a 2", INVALID, "mask", mask=[0, 1, 2]),
    archive("a mask with a -1", INVALID, "mask", mask=[0, 1, -1]),
    archive("a mask of floats", INVALID, "mask", mask=[0.0, 1.0, 1.0]),
    archive("a mask of strings", INVALID, "mask", mask=["1", "1", "0"]),
    archive("weights of another length", INVALID, "weights", weights=[1.0]),
    archive("weights of another shape", INVALID, "weights", weights=[[1.0], [1.0], [1.0]]),
    archive("negative weights", INVALID, "weights[1]", weights=[1.0, -1.0, 1.0]),
    archive("NaN weights", INVALID, "weights[2]", weights=[1.0, 1.0, np.nan]),
    archive("infinite weights", INVALID, "weights[0]", weights=[np.inf, 1.0, 1.0]),
    archive("NaN weights of a ragged batch", INVALID, "weights[1][0]", weights=[1.0, 1.0, np.nan], offsets=[0, 2, 3]),
    archive("boolean weights", INVALID, "weights", weights=[True, True, True]),
    archive("complex weights", INVALID, "weights", weights=[1j, 1, 1]),
    archive("weights of strings", INVALID, "weights", weights=["1", "1", "1"]),
    Bad("npz: weights without pooling", Sent(npz(ids=IDS, weights=np.ones(3)), NPZ), INVALID, "weights"),
    Bad("npz: weights with max", Sent(npz(ids=IDS, weights=np.ones(3)), NPZ, {"pooling": "max"}), INVALID, "weights"),
]  # fmt: skip

MEDIA = [
    headed("text/plain", "unsupported_media_type", content_type="text/plain"),
    headed("text/json", "unsupported_media_type", content_type="text/json"),
    headed("problem+json", "unsupported_media_type", content_type=PROBLEM),
    headed("a form", "unsupported_media_type", b"ids=5", content_type="application/x-www-form-urlencoded"),
    headed("a multipart form", "unsupported_media_type", content_type="multipart/form-data; boundary=x"),
    headed("a wildcard as type", "unsupported_media_type", content_type="*/*"),
    headed("an empty type", "unsupported_media_type", content_type=""),
    headed("no type at all", "unsupported_media_type", content_type=";charset=utf-8"),
    headed("latin-1", "unsupported_media_type", content_type="application/json; charset=iso-8859-1"),
    headed("utf-16", "unsupported_media_type", content_type="application/json; charset=utf-16"),
    headed("gzip", "unsupported_media_type", zlib.compress(b'{"ids": [5]}'), "gzip", content_encoding="gzip"),
    headed("deflate", "unsupported_media_type", content_encoding="deflate"),
    headed("two codings", "unsupported_media_type", content_encoding="identity, gzip"),
    headed("an answer in HTML", "not_acceptable", accept="text/html"),
    headed("an answer in nothing", "not_acceptable", accept="*/*;q=0"),
    headed("a q that is no number", "not_acceptable", accept="application/json;q=high"),
    headed("a q of NaN", "not_acceptable", accept="application/json;q=nan"),
    headed("JSON that is said to be npy", INVALID, content_type=NPY),
    headed("npy that is said to be JSON", "invalid_json", npy(IDS), content_type=JSON),
]

PATHS = [
    at("/v1/tables/nope/lookup", "table_not_found", '"table":"nope"'),
    at("/v1/tables/PADDED/lookup", "table_not_found"),
    at("/v1/tables/%2e%2e/lookup", "table_not_found"),
    at("/v1/tables/%00/lookup", "table_not_found"),
    at("/v1/tables/%ff/lookup", "table_not_found"),
    at(f"/v1/tables/{'x' * 5000}/lookup", "table_not_found"),
    at("/v1/tables/idle/lookup", "not_ready", '"table":"idle"'),
    at("/v1/tables/padded/versions/2/lookup", "version_not_found", '"table":"padded"', '"version":2'),
    at("/v1/tables/padded/versions/0/lookup", "version_not_found"),
    at("/v1/tables/padded/versions/-1/lookup", "version_not_found"),
    at("/v1/tables/padded/versions/01/lookup", "version_not_found"),
    at("/v1/tables/padded/versions/1.0/lookup", "version_not_found"),
    at("/v1/tables/padded/versions/abc/lookup", "version_not_found", "abc"),
    at("/v1/tables/padded/versions/%D9%A1/lookup", "version_not_found"),
    at(f"/v1/tables/padded/versions/{2**70}/lookup", "version_not_found", str(2**70)),
    at("/v1/tables/nope/versions/1/lookup", "table_not_found"),
    at("/v1/tables/padded/labels/nope/lookup", "label_not_found", '"label":"nope"'),
    at("/v1/tables/padded/labels/%2e%2e/lookup", "label_not_found"),
    at("/v1/tables/nope/labels/stable/lookup", "table_not_found"),
    at("/v1/tables/padded/lookup/", "not_found"),
    at("/v1/tables/padded/lookup%0A", "not_found"),
    at("/v1/tables/padded/versions/1/lookup%0A", "not_found"),
    at("/v1/tables//lookup", "not_found"),
    at("/v1/tables/padded/versions/lookup", "method_not_allowed"),  # the address of a version called lookup
    at("/v1/tables/padded/versions/1/labels/x/lookup", "not_found"),
    at("/v2/tables/padded/lookup", "not_found"),
]

SIZES = [
    text("a long body", '{"ids": [' + "5, " * 30_000 + "5]}", "request_too_large", None, BODY, '"allowed":65536'),
    text("a long body that is not JSON", "x" * 65_537, "request_too_large", None, BODY),
    binary("a long body", NPY, npy(np.zeros(10_000, np.int64)), "request_too_large", None, BODY),
    binary("a long body", NPZ, npz(ids=np.zeros(10_000, np.int64)), "request_too_large", None, BODY),
    binary("a long body", OCTETS, b"\0" * 65_544, "request_too_large", None, BODY),
    text("a long length", '{"ids": [5], "length": 10000}', "request_too_large", None, RESPONSE, '"allowed":20000'),
    text("a long length of no ids", '{"ids": [], "length": 10000}', "request_too_large", None, RESPONSE),
    text("a long length of an empty sequence", '{"ids": [[]], "length": 10000}', "request_too_large", None, RESPONSE),
    text("a length of 2**62", f'{{"ids": [[5]], "length": {2**62}}}', "request_too_large", None, RESPONSE),
    text("a length of 2**64 - 1", f'{{"ids": [5], "length": {2**64 - 1}}}', "request_too_large", None, RESPONSE),
    text("a flat one", f'{{"ids": [[5]], "flatten": true, "length": {2**62}}}', "request_too_large", None, RESPONSE),
    text("a long length in float16", '{"ids": [5], "dtype": "float16", "length": 10000}', "request_too_large", None,
         RESPONSE),
    text("longer as text than as numbers", '{"ids": [5], "length": 1500}', "request_too_large", None, RESPONSE),
    binary("a long length of no rows", NPY, npy(np.zeros((0, 5), np.int64)), "request_too_large", None, RESPONSE,
           length=str(10**9)),
    binary("a long length of no ids", OCTETS, b"", "request_too_large", None, RESPONSE, length=str(10**17)),
    binary("a long length of no sequences", NPZ, npz(ids=np.array([], np.int64), offsets=np.array([0])),
           "request_too_large", None, RESPONSE, length=str(10**17)),
]  # fmt: skip

TABLE = [
    *IDS_IN_JSON, *STRUCTURE, *TOKENS, *OPTIONS, *MASKS_AND_WEIGHTS, *QUERIES, *RAW, *IN_NPY, *IN_NPZ, *MEDIA, *PATHS,
    *SIZES,
]  # fmt: skip


def send(client: httpx.Client, bad: Bad) -> httpx.Response:
    headers = dict(bad.headers) if bad.sent.media is None else {"content-type": bad.sent.media, **bad.headers}
    params = dict(bad.sent.params) or None  # an empty dict would take the query of the path away
    return client.post(bad.path, content=bad.sent.content, params=params, headers=headers)


def check_good(client: httpx.Client) -> None:
    answer = client.post(LOOKUP, json={"ids": [5, 2]}, headers={"accept": OCTETS})
    assert answer.status_code == 200
    assert answer.content == ROWS[[5, 2]].tobytes()


def parsed(answer: httpx.Response) -> dict[str, Any]:
    """The problem; Python refuses to convert integers of more than 4,300 digits, which stay text here."""
    content: dict[str, Any] = json.loads(
        answer.text, parse_int=lambda digits: digits if len(digits) > 100 else int(digits)
    )
    return content


def check_problem(answer: httpx.Response, code: str) -> None:
    problem = parsed(answer)
    assert (answer.status_code, problem["code"]) == (CONTRACT[code], code), answer.text[:500]
    assert answer.headers["content-type"] == PROBLEM
    assert problem["status"] == answer.status_code
    assert all(isinstance(problem[name], str) and problem[name] for name in ("type", "title", "detail"))
    assert not re.search(r"Traceback| at 0x[0-9a-f]{6}", answer.text), "internals of the process are shown"


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.name) for bad in TABLE])
def test_bad_input_is_refused_and_the_server_serves_on(narrow: httpx.Client, bad: Bad) -> None:
    answer = send(narrow, bad)
    check_problem(answer, bad.code)
    if bad.place is not None:
        assert parsed(answer)["field"] == bad.place
    for part in bad.says:
        assert part in answer.text
    check_good(narrow)
    assert send(narrow, bad).text == answer.text


def test_the_names_in_the_table_are_unique() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE)


def test_the_server_serves_on_after_the_whole_table(narrow: httpx.Client) -> None:
    statuses = {bad.name: send(narrow, bad).status_code for bad in TABLE}
    allowed = {bad.name: CONTRACT[bad.code] for bad in TABLE}
    assert {name: status for name, status in statuses.items() if status >= 500 and status != allowed[name]} == {}
    check_good(narrow)


TYPES = ["1.0", "true", "1e0", '"1"', "null", "[1]", "1.5", str(2**64 + 1)]


def test_an_id_of_a_wrong_type_is_refused_before_and_after_its_row_was_served(tmp_path: Path, path: Path_) -> None:
    publish(TableStore(tmp_path), "padded", ROWS)
    bodies = [f'{{"ids": [{element}, 1]}}' for element in TYPES]
    with serving(tmp_path, path) as client:
        before = [client.post(LOOKUP, content=body) for body in bodies]
        assert {answer.status_code for answer in before} == {422}
        for _ in range(3):
            assert client.post(LOOKUP, json={"ids": [1, 1]}).status_code == 200
        after = [client.post(LOOKUP, content=body) for body in bodies]
    assert [answer.text for answer in after] == [answer.text for answer in before]


# Bodies without a length, and what no client library sends


def chunks(content: bytes, size: int = 4096) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize(
    ("media", "content", "code"),
    [
        pytest.param(JSON, b'{"ids": [' + b"5, " * 30_000 + b"5]}", "request_too_large", id="a long JSON body"),
        pytest.param(NPY, npy(np.zeros(10_000, np.int64)), "request_too_large", id="a long npy body"),
        pytest.param(OCTETS, b"\0" * 70_000, "request_too_large", id="a long raw body"),
        pytest.param(JSON, b'{"ids": [5.0]}', INVALID, id="a wrong JSON body"),
        pytest.param(JSON, b'{"ids": [5', "invalid_json", id="a cut JSON body"),
        pytest.param(NPZ, GOOD_NPZ[:-30], INVALID, id="a cut npz body"),
    ],
)
def test_a_chunked_body_is_refused_like_any_other(narrow: httpx.Client, media: str, content: bytes, code: str) -> None:
    check_problem(narrow.post(LOOKUP, content=chunks(content), headers={"content-type": media}), code)
    check_good(narrow)


def test_a_body_of_the_largest_allowed_length_is_read(narrow: httpx.Client) -> None:
    body = b'{"ids": [5]}'
    assert narrow.post(LOOKUP, content=body + b" " * (65_536 - len(body))).status_code == 200
    check_problem(narrow.post(LOOKUP, content=body + b" " * (65_537 - len(body))), "request_too_large")


def test_as_many_ids_as_allowed_are_looked_up(narrow: httpx.Client) -> None:
    assert narrow.post(LOOKUP, json={"ids": [[5] * 50, [2] * 50]}).status_code == 200


def test_an_answer_below_the_limit_as_bytes_is_given_as_bytes(narrow: httpx.Client) -> None:
    body = {"ids": [5], "length": 1500}
    assert len(narrow.post(LOOKUP, json=body, headers={"accept": OCTETS}).content) == 18_000


def exchange(client: httpx.Client, data: bytes, *, breaks_off: bool) -> bytes:
    """All that the server sends back for these bytes until it closes the connection."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        connection.sendall(data)
        if breaks_off:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while part := connection.recv(65_536):
            received += part
        return received


HEAD = f"POST {LOOKUP} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(HEAD + b"Content-Length: 70000\r\n\r\n", b"413", id="a length over the limit, no body"),
        pytest.param(HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", b"400", id="a length over 2**64"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n", b"400", id="a negative length"),
        pytest.param(HEAD + b"Content-Length: ten\r\n\r\n", b"400", id="a length in words"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400", id="a chunk of no length"),
        pytest.param(HEAD + b"\r\n", b"400", id="no body and no length"),
        pytest.param(b"\x16\x03\x01\x00\xa5\x01\x00\x00", b"400", id="a TLS greeting"),
        pytest.param(b"POST\r\n\r\n", b"400", id="no path"),
        pytest.param(b"\0" * 100, b"400", id="zeros"),
    ],
)
def test_broken_http_is_refused(narrow: httpx.Client, data: bytes, status: bytes) -> None:
    assert exchange(narrow, data, breaks_off=False).split(b" ")[1] == status
    check_good(narrow)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /v1/tab", id="in the first line"),
        pytest.param(HEAD, id="in the headers"),
        pytest.param(HEAD + b"Content-Length: 100\r\n\r\n" + b'{"ids": [5]}', id="in the body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", id="in a chunk"),
    ],
)
def test_a_request_that_breaks_off_gets_no_answer_and_does_no_harm(narrow: httpx.Client, data: bytes) -> None:
    assert exchange(narrow, data, breaks_off=True) == b""
    check_good(narrow)


def test_a_length_over_the_limit_is_refused_before_the_body_comes(narrow: httpx.Client) -> None:
    address = (narrow.base_url.host, narrow.base_url.port or 80)
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(HEAD + b"Content-Length: 70000\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


# Bodies that are damaged at random

MEMBERS = {"ids.npy": npy(IDS), "offsets.npy": npy(np.array([0, 2, 3])), "weights.npy": npy(np.ones(3))}


def damaged(body: bytes, count: int) -> Iterator[bytes]:
    """Copies of `body` with a few bytes replaced; every fifth is cut as well. The same ones in every run."""
    generator = np.random.default_rng(len(body))
    for number in range(count):
        copy = bytearray(body)
        for position in generator.integers(len(copy), size=generator.integers(1, 5)).tolist():
            copy[position] = generator.choice([0, 1, 0x28, 0x7F, 0x80, 0xFF])
        yield bytes(copy[: int(generator.integers(len(copy)))] if number % 5 == 4 else copy)


@pytest.mark.parametrize(
    ("media", "body"),
    [
        pytest.param(JSON, b'{"ids": [[5, 2], [3]], "pooling": "mean", "weights": [[1, 0.5], [2]]}', id="json"),
        pytest.param(NPY, npy(IDS.reshape(1, 3)), id="npy"),
        pytest.param(NPZ, zipped(MEMBERS), id="npz stored"),
        pytest.param(NPZ, zipped(MEMBERS, zipfile.ZIP_DEFLATED), id="npz deflated"),
        pytest.param(NPZ, zipped(MEMBERS, zipfile.ZIP_BZIP2), id="npz bzip2"),
        pytest.param(NPZ, zipped(MEMBERS, zipfile.ZIP_LZMA), id="npz lzma"),
    ],
)
def test_a_body_that_is_damaged_anywhere_is_no_fault_of_the_server(
    narrow: httpx.Client, media: str, body: bytes
) -> None:
    params = {"pooling": "mean"} if media == NPZ else None
    for copy in damaged(body, 120):
        answer = narrow.post(LOOKUP, content=copy, params=params, headers={"content-type": media})
        assert answer.status_code in {200, 400, 413, 422}, f"{copy!r}: {answer.text}"
    check_good(narrow)
