"""Arrays that a user gives or gets: .npy and .npz files."""

from __future__ import annotations

import io
from zipfile import BadZipFile

import numpy as np

from sw.compiler.errors import InputError

__all__ = ["array_bytes", "read_array", "read_arrays"]


def array_bytes(array: np.ndarray) -> bytes:
    """Content of the .npy file of an array."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read_arrays(path: str, role: str) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a .npy file, or those of a .npz file by name.

    role: what to call the file in an `InputError`.
    """
    try:
        with open(path, "rb") as file:  # NumPy leaves what it opens itself open
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            arrays = {name: found[name] for name in found.files}
    except OSError as error:
        raise InputError(f"{role} {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{role} {path} is not a .npy or .npz file of numbers: {error}") from None
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:  # any zip file opens
        raise InputError(
            f"{role} {path} is not a .npy or .npz file of numbers: {strange[0]} is no array"
        )
    return arrays


def read_array(path: str, role: str) -> np.ndarray:
    """The array of a .npy file. role: what to call the file in an `InputError`."""
    found = read_arrays(path, role)
    if isinstance(found, np.ndarray):
        return found
    raise InputError(
        f"{role} {path} has several arrays ({', '.join(found)}): give a .npy file with one"
    )
