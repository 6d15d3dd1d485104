"""The messages between a caller and a worker: a JSON header and raw bytes, with lengths before them.

A message is one `<I` length of the header, the header, and the blobs whose lengths the header lists under
`blobs`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

from bytegen.sandbox.result import Fault, Result, Syscall


def send(stream: BinaryIO, header: dict[str, Any], blobs: Sequence[bytes]) -> None:
    """Write one message and flush. Raises OSError where the other side is gone."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    stream.write(b"".join((struct.pack("<I", len(text)), text, *blobs)))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Read one message. Raises EOFError where the other side is gone."""
    (size,) = struct.unpack("<I", _exactly(stream, 4))
    header = json.loads(_exactly(stream, size))
    return header, [_exactly(stream, size) for size in header["blobs"]]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def pack_result(result: Result) -> tuple[dict[str, Any], list[bytes]]:
    """A result as a message."""
    fault = result.fault
    header = {
        "exit_code": result.exit_code,
        "limit": result.limit,
        "instructions": result.instructions,
        "syscall_count": result.syscall_count,
        "refused": result.refused,
        "slept_ns": result.slept_ns,
        "seconds": result.seconds,
        "syscalls": [(call.number, call.name, call.args, call.result) for call in result.syscalls],
        "fault": fault
        and (fault.kind, fault.signal, fault.ip, fault.address, fault.code.hex(), fault.disassembly),
    }
    return header, [result.stdout, result.stderr]


def unpack_result(header: dict[str, Any], blobs: list[bytes]) -> Result:
    """The result that `pack_result` packed."""
    fault = None
    if header["fault"]:
        kind, signal, ip, address, code, disassembly = header["fault"]
        fault = Fault(kind, signal, ip, address, bytes.fromhex(code), disassembly)
    return Result(
        stdout=blobs[0],
        stderr=blobs[1],
        exit_code=header["exit_code"],
        fault=fault,
        limit=header["limit"],
        instructions=header["instructions"],
        syscalls=tuple(Syscall(n, name, tuple(args), value) for n, name, args, value in header["syscalls"]),
        syscall_count=header["syscall_count"],
        refused=tuple(header["refused"]),
        slept_ns=header["slept_ns"],
        seconds=header["seconds"],
    )
