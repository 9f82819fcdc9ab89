"""The container of saved files: the zip archive that ``torch.save`` writes, and a digest after it.

The digest is the SHA-256 of all bytes before it, so one changed bit anywhere in the file is noticed. Files
without a digest, which earlier versions wrote, are read as well: every checksum must be right, and what the
archive says twice, in its central directory and beside each record, must be the same.

Python's ``zipfile`` and torch's own reader each believe one of the two places, so a bit that is wrong in the
other place can lead to another record. :class:`Archive` reads the content itself, from where it was checked.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import torch

_MARK = b"\nfsrl_ext sha256 "
_TRAILER = len(_MARK) + 64 + 1  # the mark, the digest as text, and a line feed

# APPNOTE.TXT 6.3.10 of PKWARE, sections 4.3.7, 4.3.12, 4.3.14, 4.3.15 and 4.3.16.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_SIZES_FOLLOW = 0x0008  # flag of a record whose checksum and sizes stand after its content
_CHUNK = 1 << 20


class DamagedError(ValueError):
    """A file is not as it was written; the message says in which respect."""


@dataclass(frozen=True)
class _Record:
    start: int
    size: int
    checksum: int


def write_archive(file: IO[bytes], data: dict[str, Any]) -> None:
    """Writes tensors, numbers and text to a file that is open for writing, and then the digest.

    ``torch.load(path, weights_only=True)`` reads it, too, without looking at the digest.
    """
    hashing = _HashingWriter(file)
    torch.save(data, hashing)  # type: ignore[arg-type]
    file.write(_MARK + hashing.digest.hexdigest().encode() + b"\n")


class _HashingWriter:
    """Passes bytes on to a file and adds them to a digest; torch needs no more of a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class Archive:
    """The records of a saved file, checked.

    :param file: open for reading, and open as long as records are read.
    :raises DamagedError: if a byte is not as it was written, as far as the file can tell.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        end = file.seek(0, os.SEEK_END)
        trailer = self._read(end - _TRAILER, _TRAILER) if end >= _TRAILER else b""
        self.has_digest = trailer.startswith(_MARK)
        if self.has_digest:
            end -= _TRAILER
            if self._digest(end) != trailer[len(_MARK) : -1]:
                raise DamagedError("its digest is wrong")
        self._records = dict(self._checked(end))

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def size(self, name: str) -> int:
        """The number of bytes of a record."""
        return self._records[name].size

    def read(self, name: str) -> bytes:
        """The content of a record, by its name without the archive's own."""
        record = self._records[name]
        return self._read(record.start, record.size)

    def read_into(self, name: str, buffer: memoryview) -> None:
        """Reads a record into a buffer of its size."""
        record = self._records[name]
        self._file.seek(record.start)
        if self._file.readinto(buffer) != record.size:  # type: ignore[attr-defined]
            raise DamagedError("it is too short")

    def _read(self, start: int, size: int) -> bytes:
        if start < 0:
            raise DamagedError("it is too short")
        self._file.seek(start)
        data = self._file.read(size)
        if len(data) != size:
            raise DamagedError("it is too short")
        return data

    def _digest(self, end: int) -> bytes:
        digest = hashlib.sha256()
        for chunk in self._chunks(0, end):
            digest.update(chunk)
        return digest.hexdigest().encode()

    def _chunks(self, start: int, size: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(_CHUNK, size)))
        self._file.seek(start)
        while size:
            count = self._file.readinto(buffer[:size])  # type: ignore[attr-defined]
            if not count:
                raise DamagedError("it is too short")
            yield buffer[:count]
            size -= count

    def _checked(self, end: int) -> Iterator[tuple[str, _Record]]:
        """The records by name; they must follow each other from the first byte to the directory."""
        count, directory, after = self._directory(end)
        place, position, seen = directory, 0, set()
        for _ in range(count):
            name, record, next_place = self._central(place, after)
            local = self._unpack(_LOCAL, position, b"PK\x03\x04")
            _, _, flags, method, _, _, checksum, packed, size, name_length, extra_length = local
            stored = self._read(position + _LOCAL.size, name_length)
            start = position + _LOCAL.size + name_length + extra_length
            known = (record.checksum, record.size, record.size)
            if (name, position, start, method) != (stored, record.start, start, 0):
                raise DamagedError("its directory and its records do not agree")
            if (checksum, packed, size) != known and not (
                flags & _SIZES_FOLLOW and (checksum, packed, size) == (0, 0, 0)
            ):
                raise DamagedError("its directory and its records do not agree")
            position = start + record.size
            if flags & _SIZES_FOLLOW:
                wide = max(record.size, record.start) >= _FULL_32
                follow = struct.pack("<4sI2Q" if wide else "<4s3I", b"PK\x07\x08", *known)
                if self._read(position, len(follow)) != follow:
                    raise DamagedError("its directory and its records do not agree")
                position += len(follow)
            if not self.has_digest:
                self._check_sum(stored, start, record)
            inner = self._inner_name(stored)
            if inner in seen:
                raise DamagedError("it has two records of one name")
            seen.add(inner)
            yield inner, _Record(start, record.size, record.checksum)
            place = next_place
        if (place, position) != (after, directory):
            raise DamagedError("there are bytes between its records")

    def _check_sum(self, name: bytes, start: int, record: _Record) -> None:
        checksum = 0
        for chunk in self._chunks(start, record.size):
            checksum = zlib.crc32(chunk, checksum)
        if checksum != record.checksum:
            raise DamagedError(f"the checksum of {name.decode(errors='replace')} is wrong")

    @staticmethod
    def _inner_name(name: bytes) -> str:
        try:
            return name.decode().partition("/")[2]
        except UnicodeDecodeError:
            raise DamagedError("a record has no readable name") from None

    def _directory(self, end: int) -> tuple[int, int, int]:
        """The number of records, where the directory starts, and where it ends."""
        if self._read(0, 4) != b"PK\x03\x04":
            raise DamagedError("it is not what torch.save writes")
        start = end - _END.size
        _, *disks, here, count, size, offset, comment = self._unpack(_END, start, b"PK\x05\x06")
        after = start
        if self._read(max(start - _LOCATOR.size, 0), 4) == b"PK\x06\x07":
            start -= _LOCATOR.size
            _, disk, start_64, total = self._unpack(_LOCATOR, start, b"PK\x06\x07")
            wide = self._unpack(_END_64, start - _END_64.size, b"PK\x06\x06")
            _, length, _, _, *disks_64, here_64, count_64, size_64, offset_64 = wide
            after = start - _END_64.size
            same = [
                (disk, total, start_64, length) == (0, 1, after, _END_64.size - 12),
                disks_64 == [0, 0],
                here in (here_64, _FULL_16) and count in (count_64, _FULL_16),
                size in (size_64, _FULL_32) and offset in (offset_64, _FULL_32),
            ]
            if not all(same):
                raise DamagedError("the ends of its directory do not agree")
            here, count, size, offset = here_64, count_64, size_64, offset_64
        if (here, *disks, comment, offset + size) != (count, 0, 0, 0, after):
            raise DamagedError("the ends of its directory do not agree")
        return count, offset, after

    def _central(self, place: int, after: int) -> tuple[bytes, _Record, int]:
        """An entry of the directory: its name, its record (from its header on), and the next entry."""
        entry = self._unpack(_CENTRAL, place, b"PK\x01\x02")
        method, checksum, packed, size = entry[4], *entry[7:10]
        name_length, extra_length, comment, disk, _, _, offset = entry[10:]
        next_place = place + _CENTRAL.size + name_length + extra_length + comment
        if next_place > after:
            raise DamagedError("its directory is too long")
        name = self._read(place + _CENTRAL.size, name_length)
        extra = self._read(place + _CENTRAL.size + name_length, extra_length)
        wide = _wide_numbers(extra)
        numbers = [next(wide, -1) if x == _FULL_32 else x for x in (size, packed, offset)]
        if (method, comment, disk, numbers[0]) != (0, 0, 0, numbers[1]):
            raise DamagedError("a record is compressed or incomplete")
        return name, _Record(numbers[2], numbers[0], checksum), next_place

    def _unpack(self, layout: struct.Struct, start: int, signature: bytes) -> tuple[Any, ...]:
        values = layout.unpack(self._read(start, layout.size))
        if values[0] != signature:
            raise DamagedError("a part of its directory is missing")
        return values


def _wide_numbers(extra: bytes) -> Iterator[int]:
    """The 64-bit numbers of an entry's extra fields (section 4.5.3)."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, place)
        if kind == 1:
            for i in range(place + 4, place + 4 + length - 7, 8):
                yield struct.unpack_from("<Q", extra, i)[0]
        place += 4 + length
