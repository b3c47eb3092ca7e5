"""Arrays and JSON in one safetensors file, sealed by a SHA-256: programs, graphs, checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

__all__ = ["TensorFileError", "kind_of", "read_tensors", "tensor_bytes"]


class TensorFileError(ValueError):
    """A file that is damaged, of another kind, or of another version; the text says which."""


def tensor_bytes(
    arrays: Mapping[str, np.ndarray], header: Mapping[str, Any], kind: str, version: int
) -> bytes:
    """The file's content, always the same bytes. header: what JSON can hold. kind, version: of
    the file."""
    text = json.dumps(header)
    metadata = {
        "format": kind,
        "version": str(version),
        "header": text,
        "sha256": _digest(text, arrays),
    }
    return _ordered(save(dict(arrays), metadata))


def kind_of(path: str | Path) -> str | None:
    """What kind of file it says to be; None for no such file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError, ValueError):
        return None


def read_tensors(
    path: str | Path, kind: str, version: int, again: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays) of an intact file of this kind and version.

    again: what to do with one of an older version. Raises `TensorFileError`, and
    `FileNotFoundError` where there is none.
    """
    name = _name_of(kind)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            other = metadata.get("format", "")
            if other != kind:
                but = f" but a {_name_of(other)} file" if other.startswith("weft-") else ""
                raise TensorFileError(f"{path} is not a {name} file{but}")
            found = metadata.get("version", "")
            if found != str(version):
                newer = found.isdigit() and int(found) > version
                raise TensorFileError(
                    f"{path} has {name} version {found}, this is {version}: "
                    + ("update this software" if newer else again)
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}
    except (FileNotFoundError, TensorFileError):
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise TensorFileError(f"{path} is damaged or no {name} file: {error}") from None
    text = metadata.get("header", "")
    if _digest(text, arrays) != metadata.get("sha256"):
        raise TensorFileError(f"{path} is damaged: its contents do not match its SHA-256")
    return json.loads(text), arrays


def _name_of(kind: str) -> str:
    return kind.removeprefix("weft-").replace("-", " ")


def _ordered(data: bytes) -> bytes:
    """A safetensors file with its metadata in order: the library writes them in a random one."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _digest(header: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Over the header and every array with its name, type and shape."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
