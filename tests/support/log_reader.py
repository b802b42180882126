"""A second reader of the log, written from docs/format.md alone; it shares no code with the engine.

It reads a whole database directory, checks every checksum, place, count and number, and hands out
what it found as plain values. It writes nothing and decides nothing about torn tails: a log that
is not whole and cleanly closed is a `NotTheFormatError`. It reads files into memory whole.

From a shell: `python tests/support/log_reader.py agent.wafer` prints what is in a log.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

SEGMENT_HEADER = struct.Struct("<8sHHI16sQQQQQQq")
GROUP_HEADER = struct.Struct("<4sHHQQQIIIIQQQQ")
RECORD_HEADER = struct.Struct("<IBB2sQqQ")
SEGMENT_HEADER_BYTES = 512
ALIGN = 512

COMMIT, CHECKPOINT, SEAL, IDLE, CLOSE = 1, 16, 17, 18, 19
KINDS = {COMMIT: "commit", CHECKPOINT: "checkpoint", SEAL: "seal", IDLE: "idle", CLOSE: "close"}
OPERATIONS = {1: "put", 2: "delete", 3: "append", 4: "forget", 5: "delete scope"}
CODECS = {0: "msgpack", 1: "raw", 2: "float32"}
PRIORITIES = ("routine", "critical", "background")
NONE, INLINE, STORED, BACK = range(4)
INLINE_BYTES_MAX = 31


class NotTheFormatError(Exception):
    """The bytes are not as docs/format.md says."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise NotTheFormatError(what)


def xxh3(data: bytes, seed: int = 0) -> int:
    return xxhash.xxh3_64_intdigest(data, seed)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def prefixed(data: bytes) -> bytes:
    return varint(len(data)) + data


class Taker:
    """Takes the parts off the front of bytes, in the forms of the format's conventions."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        require(count <= len(self.data) - self.at, f"{count} bytes wanted at {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                require(value < 1 << 64, "a number of more than 64 bits")
                return value
        raise NotTheFormatError("a number of more than 64 bits")

    def bytes(self) -> bytes:
        return self.take(self.varint())

    def text(self) -> str:
        return self.bytes().decode("utf-8")

    @property
    def rest(self) -> int:
        return len(self.data) - self.at


@dataclass(frozen=True)
class Segment:
    path: Path
    data: bytes
    database: bytes
    number: int
    salt: int
    epoch: int
    first_group: int
    first_lsn: int
    capacity: int
    created: int

    def tag(self, offset: int) -> int:
        return xxh3(u64(self.number) + u64(offset), self.salt)


@dataclass(frozen=True)
class Group:
    segment: int
    offset: int
    end: int
    epoch: int
    number: int
    first_lsn: int
    records: int
    commits: int
    durable_lsn: int
    checkpoint: tuple[int, int]


@dataclass(frozen=True)
class Operation:
    operation: str
    structure: int
    key: bytes
    meta: bytes
    codec: str | None
    value: bytes | None
    form: int
    owner: int | None
    """Index of the operation whose value this one refers back to."""
    offset: int
    operation_code: int
    codec_code: int


@dataclass(frozen=True)
class Commit:
    lsn: int
    time: int
    epoch: int
    txn: str
    priority: str
    actor: str | None
    reason: str | None
    salt: bytes | None
    operations: tuple[Operation, ...]
    offset: int


@dataclass(frozen=True)
class Control:
    kind: str
    time: int
    body: bytes
    place: tuple[int, int]


@dataclass(frozen=True)
class Checkpoint:
    floor: int
    epochs: tuple[tuple[int, int, int], ...]
    """Number, incarnation and first LSN of each."""
    schema: dict[str, Any]


@dataclass
class Log:
    database: bytes
    segments: list[Segment] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)

    @property
    def schema(self) -> dict[str, Any]:
        return self.checkpoints[-1].schema

    def structure(self, name: str) -> dict[str, Any]:
        """The newest declaration of a structure."""
        known: list[dict[str, Any]] = self.schema["structures"]
        found = [structure for structure in known if structure["name"] == name]
        require(len(found) == 1, f"no structure {name}")
        return found[0]


def read_log(directory: Path) -> Log:
    """Reads a database that was closed cleanly; raises `NotTheFormatError` for any other."""
    log = Log(read_marker(directory / "DATABASE"))
    paths = sorted((directory / "log").iterdir())
    require(bool(paths), "no segments")
    log.segments = [read_segment(path, n, log.database) for n, path in enumerate(paths, start=1)]
    for segment in log.segments:
        ending = read_groups(segment, log)
        last = segment is log.segments[-1]
        require(ending == ("close" if last else "seal"), f"{segment.path.name} ends in {ending}")
    check_checkpoints(log)
    return log


def read_marker(path: Path) -> bytes:
    data = path.read_bytes()
    require(len(data) == 32 and data[:8] == b"WAFERDB\n", "DATABASE: no magic")
    require(data[24:] == u64(xxh3(data[:24])), "DATABASE: checksum")
    return data[8:24]


def read_segment(path: Path, number: int, database: bytes) -> Segment:
    data = path.read_bytes()
    require(path.name == f"{number:08}.wal", f"{path.name} where segment {number} is due")
    header = data[:SEGMENT_HEADER_BYTES]
    require(len(header) == SEGMENT_HEADER_BYTES, "a segment of less than its header")
    require(header[504:] == u64(xxh3(header[:504])), f"{path.name}: checksum of the header")
    magic, version, header_bytes, features, *words = SEGMENT_HEADER.unpack_from(header)
    require((magic, version) == (b"WAFERLOG", 1), f"{path.name}: format")
    require((header_bytes, features) == (SEGMENT_HEADER_BYTES, 0), f"{path.name}: features")
    require(not any(header[SEGMENT_HEADER.size : 504]), f"{path.name}: reserved bytes are used")
    segment = Segment(path, data, *words)
    require(segment.number == number, f"{path.name} says it is segment {segment.number}")
    require(segment.database == database, f"{path.name} is of another database")
    require(segment.capacity % ALIGN == 0 and len(data) <= segment.capacity, "capacity")
    return segment


def read_groups(segment: Segment, log: Log) -> str | None:
    """Reads every group of a segment into `log`; returns the kind of the last record."""
    offset, ending = SEGMENT_HEADER_BYTES, None
    while offset < len(segment.data) and ending != "seal":
        group, ending = read_group(segment, offset, log)
        offset = group.end
    require(offset == len(segment.data), f"{segment.path.name}: bytes behind the last group")
    return ending


def read_group(segment: Segment, offset: int, log: Log) -> tuple[Group, str | None]:
    where = f"{segment.path.name} at {offset}"
    header = segment.data[offset : offset + GROUP_HEADER.size]
    require(len(header) == GROUP_HEADER.size, f"{where}: the file ends in a group header")
    magic, flags, header_bytes, *fields, checksum = GROUP_HEADER.unpack(header)
    epoch, number, first_lsn, records, commits, length, reserved, durable, *checkpoint = fields
    require(magic == b"WGRP", f"{where}: no group")
    content = xxh3(header[:72], xxh3(log.database))
    require(checksum == content ^ segment.tag(offset), f"{where}: checksum of the group header")
    require((flags, header_bytes, reserved) == (0, 80, 0), f"{where}: reserved fields")
    newest = log.groups[-1] if log.groups else None
    require(number == (newest.number + 1 if newest else 1), f"{where}: group {number}")
    require(first_lsn == len(log.commits) + 1, f"{where}: first LSN {first_lsn}")
    require(epoch >= (newest.epoch if newest else segment.epoch), f"{where}: epoch {epoch}")
    require(durable <= len(log.commits), f"{where}: durable LSN {durable}")
    end = offset + -(-length // ALIGN) * ALIGN
    require(GROUP_HEADER.size <= length and end <= len(segment.data), f"{where}: length {length}")
    require(not any(segment.data[offset + length : end]), f"{where}: padding is not zero")
    place = (checkpoint[0], checkpoint[1])
    group = Group(
        segment.number, offset, end, epoch, number, first_lsn, records, commits, durable, place
    )
    log.groups.append(group)
    before, at, kind, count = len(log.commits), offset + GROUP_HEADER.size, None, 0
    while at < offset + length:
        at, kind = read_record(segment, at, offset + length, group, log)
        count += 1
    require(count == records, f"{where}: {count} records, not {records}")
    require(len(log.commits) - before == commits, f"{where}: another count of commits")
    known = [control.place for control in log.controls if control.kind == "checkpoint"]
    require(place == (0, 0) or place in known, f"{where}: no checkpoint at {place}")
    return group, kind


def read_record(
    segment: Segment, at: int, group_end: int, group: Group, log: Log
) -> tuple[int, str]:
    where = f"{segment.path.name} at {at}"
    require(at + RECORD_HEADER.size <= group_end, f"{where}: a record header is cut off")
    header = segment.data[at : at + RECORD_HEADER.size]
    body_bytes, kind, flags, reserved, lsn, time, checksum = RECORD_HEADER.unpack(header)
    start = at + RECORD_HEADER.size
    require(start + body_bytes <= group_end, f"{where}: longer than its group")
    require(kind in KINDS and flags == 1 and reserved == b"\0\0", f"{where}: kind or flags")
    body = segment.data[start : start + body_bytes]
    seed = xxh3(log.database, group.epoch)
    if kind == COMMIT:
        require(lsn == len(log.commits) + 1, f"{where}: LSN {lsn}")
        commit, heads, values = read_commit(segment, at, body, (lsn, time, group.epoch), seed)
        require(not log.commits or log.commits[-1].time <= time, f"{where}: time went back")
        log.commits.append(commit)
    else:
        require(lsn == 0, f"{where}: a control record with an LSN")
        heads, values = xxh3(body), 0
    content = xxh3(header[:24] + u64(heads) + u64(values), seed)
    require(checksum == content ^ segment.tag(at), f"{where}: checksum of the record")
    if kind != COMMIT:
        read_control(log, Control(KINDS[kind], time, body, (segment.number, at)))
    return start + body_bytes, KINDS[kind]


def read_control(log: Log, control: Control) -> None:
    log.controls.append(control)
    taker = Taker(control.body)
    if control.kind == "checkpoint":
        log.checkpoints.append(read_checkpoint(taker))
    elif control.kind == "seal":
        require(taker.varint() == log.groups[-1].segment + 1, "a seal names another segment")
    require(taker.rest == 0, f"bytes behind the {control.kind}")


def read_checkpoint(taker: Taker) -> Checkpoint:
    version = taker.u8()
    require(version in (1, 2, 3), "version of the checkpoint")
    floor = taker.varint()
    epochs = [(taker.varint(), taker.u64(), taker.varint()) for _ in range(taker.varint())]
    require(epochs == sorted(epochs), "epochs are not in order")
    schema = json.loads(taker.text())
    if version > 1:
        read_stored(taker, version)
    return Checkpoint(floor, tuple(epochs), schema)


def read_stored(taker: Taker, version: int) -> None:
    """Where a replay begins, the next file's number, and the live files of each structure."""
    segment, offset, *_ = (taker.varint() for _ in range(5))
    require(segment > 0 and offset % 512 == 0, "a replay begins between two groups")
    next_file = taker.varint()
    for _ in range(taker.varint()):
        structure, applied = taker.varint(), taker.varint()
        for _ in range(taker.varint()):
            number, owner, _length = (taker.varint() for _ in range(3))
            taker.u64()
            first, last, _entries = (taker.varint() for _ in range(3))
            require(number < next_file and owner == structure, "a run is another's")
            require(first <= last <= applied, "a run holds what is not applied")
        if version > 2:
            for _ in range(taker.varint()):
                number, length = taker.varint(), taker.varint()
                taker.u64()
                _rows, _last = taker.varint(), taker.varint()
                require(number < next_file and length % 512 == 0, "a graph is no whole file")
            taker.varint()
    for _ in range(taker.varint()):
        _number, segment, _offset, _bytes, _epoch = (taker.varint() for _ in range(5))
        require(segment > 0, "a dictionary lies in a segment")


def read_commit(
    segment: Segment, at: int, body: bytes, names: tuple[int, int, int], seed: int
) -> tuple[Commit, int, int]:
    """The commit, and the two chains its record's checksum is over."""
    lsn, time, epoch = names
    taker = Taker(body)
    flags = taker.u8()
    require(flags < 64 and flags & 3 < 3, "flags of a commit")
    txn = f"{taker.u64():016x}-{taker.varint()}" if flags & 16 else taker.text()
    actor = taker.text() if flags & 4 else None
    reason = taker.text() if flags & 8 else None
    salt = taker.take(16) if flags & 32 else None
    count = taker.varint()
    head = body[: taker.at]
    heads = values = 0
    operations: list[Operation] = []
    for _ in range(count):
        start = taker.at
        offset = at + RECORD_HEADER.size + start
        operation, head_end, stored = read_frame(taker, operations, offset)
        heads = xxh3(body[start:head_end], heads)
        if stored is not None:
            value = operation.value or b""
            bound = u64(xxh3(value)) + u64(xxh3(operation.key)) + u64(lsn)
            content = xxh3(bound + struct.pack("<I", operation.structure), seed)
            require(stored == content ^ segment.tag(offset), f"LSN {lsn}: checksum of a value")
            values = xxh3(u64(content), values)
        operations.append(operation)
    require(taker.rest == 0, f"LSN {lsn}: bytes behind the last operation")
    heads = xxh3(head, heads)
    priority = PRIORITIES[flags & 3]
    commit = Commit(lsn, time, epoch, txn, priority, actor, reason, salt, tuple(operations), at)
    return commit, heads, values


def read_frame(
    taker: Taker, earlier: list[Operation], offset: int
) -> tuple[Operation, int, int | None]:
    """The operation, where its head ends, and the value sum it stores."""
    code, flags = taker.u8(), taker.u8()
    require(code in OPERATIONS and flags < 8, f"operation {code} of form {flags}")
    form = flags & 3
    require(taker.varint() == 0, "an unknown namespace")
    structure, key = taker.varint(), taker.bytes()
    meta = taker.bytes() if flags & 4 else b""
    require(bool(meta) == bool(flags & 4), "an empty meta")
    codec, value, owner, stored = 0, None, None, None
    head_end = None
    if form != NONE:
        codec = taker.u8()
        require(codec in CODECS, f"codec {codec}")
    if form == INLINE:
        value = taker.bytes()
        require(len(value) <= INLINE_BYTES_MAX, "a long value is inline")
    elif form == STORED:
        length = taker.varint()
        head_end = taker.at
        stored, value = taker.u64(), taker.take(length)
        require(length > INLINE_BYTES_MAX, "a short value is stored")
    elif form == BACK:
        distance, length = taker.varint(), taker.varint()
        head_end = taker.at
        stored = taker.u64()
        places = [known.offset for known in earlier]
        require(offset - distance in places, "a back-reference to no operation")
        owner = places.index(offset - distance)
        value = earlier[owner].value
        require(earlier[owner].form == STORED and value is not None, "its owner stores no value")
        require(len(value or b"") == length, "its owner's value is of another length")
    operation = Operation(
        OPERATIONS[code],
        structure,
        key,
        meta,
        CODECS[codec] if form != NONE else None,
        value,
        form,
        owner,
        offset,
        code,
        codec,
    )
    return operation, head_end or taker.at, stored


def check_checkpoints(log: Log) -> None:
    require(bool(log.checkpoints), "no checkpoint")
    known = {number: first for one in log.checkpoints for number, _, first in one.epochs}
    for commit in log.commits:
        require(commit.epoch in known, f"epoch {commit.epoch} is in no checkpoint")
        require(known[commit.epoch] <= commit.lsn, f"LSN {commit.lsn} is before its epoch")


def leaf(commit: Commit) -> bytes:
    """What is hashed as the audit leaf of a commit."""
    out = b"\x01" + u64(commit.lsn) + struct.pack("<q", commit.time)
    out += prefixed(commit.txn.encode()) + varint(len(commit.operations))
    for operation in commit.operations:
        out += operation_digest(commit.salt or bytes(16), operation)
    for note in (commit.actor, commit.reason):
        out += bytes([note is not None]) + prefixed((note or "").encode())
    return out


def operation_digest(salt: bytes, operation: Operation) -> bytes:
    out = salt + bytes([operation.operation_code]) + varint(operation.structure)
    out += prefixed(operation.key) + prefixed(operation.meta)
    if operation.value is not None:
        out += bytes([operation.codec_code]) + operation.value
    return hashlib.sha256(out).digest()


def merkle_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, in its plainest form."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    left, right = merkle_root(leaves[:split]), merkle_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def show(log: Log) -> None:
    write = sys.stdout.write
    write(f"database {log.database.hex()}, {len(log.segments)} segments\n")
    for group in log.groups:
        write(f"group {group.number} epoch {group.epoch} segment {group.segment}")
        write(f" at {group.offset}: {group.records} records\n")
    for commit in log.commits:
        write(f"LSN {commit.lsn} {commit.txn} {commit.priority}\n")
        for operation in commit.operations:
            size = "" if operation.value is None else f", {len(operation.value)} B"
            write(f"  {operation.operation} {operation.structure} {operation.key!r}{size}\n")


if __name__ == "__main__":
    show(read_log(Path(sys.argv[1])))
