"""Files of arrays: what is read, and what is refused in one line without a file left open."""

import gc
import zipfile

import numpy as np
import pytest

from sw.compiler.errors import InputError
from sw.compiler.program.array_file import read_array, read_arrays

ONE = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_one_array_and_several(tmp_path):
    np.save(tmp_path / "one.npy", ONE)
    np.savez(tmp_path / "two.npz", a=ONE, b=ONE + 1)
    assert np.array_equal(read_array(str(tmp_path / "one.npy"), "input"), ONE)
    found = read_arrays(str(tmp_path / "two.npz"), "inputs")
    assert isinstance(found, dict) and list(found) == ["a", "b"]
    assert np.array_equal(found["b"], ONE + 1)
    with pytest.raises(InputError, match=r"^input \S+ has several arrays \(a, b\): give a .npy"):
        read_array(str(tmp_path / "two.npz"), "input")
    gc.collect()  # a file that was left open complains here


def test_what_is_not_arrays(tmp_path):
    np.savez(tmp_path / "whole.npz", a=ONE)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("letter.txt", "hello")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:60])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("1 2 3")
    for name, text in (
        ("missing.npy", "No such file"),
        ("", "Is a directory"),
        ("objects.npy", "not a .npy or .npz file of numbers"),
        ("objects.npz", "not a .npy or .npz file of numbers"),
        ("cut.npz", "not a .npy or .npz file of numbers"),
        ("empty.npy", "not a .npy or .npz file of numbers"),
        ("text.npy", "not a .npy or .npz file of numbers"),
        ("other.zip", "not a .npy or .npz file of numbers: letter.txt is no array"),
    ):
        with pytest.raises(InputError, match=text):
            read_arrays(str(tmp_path / name), "inputs")
        gc.collect()
