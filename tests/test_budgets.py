"""What files ask for is checked before anything is allocated: each attack is one line, at once."""

import io
import json
import math
import os
import socket
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from a2fjax import archives, budgets
from a2fjax.animation import emotion, formats, mesh, tracks
from a2fjax.errors import InputError


def say(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


def test_only_files_are_opened(tmp_path):
    """Opening a pipe waits for ever, reading a device never ends."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
    for name, expected in {
        "fifo": "a named pipe", "zero": "a device", "folder": "a folder", "socket": "a socket",
        "loop": "symbolic links", "none": "no such file", "n" * 5000: "name too long",
        "a\0b": "not a name",
    }.items():  # fmt: skip
        with pytest.raises(InputError) as error:
            budgets.regular_file(tmp_path / name)
        assert expected in say(error)


@pytest.mark.parametrize(
    "ending", [".npz", ".npy", ".obj", ".ply", ".csv", ".json", ".channels.csv"]
)
def test_readers_open_only_files(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    os.mkfifo(path)
    readers = [mesh.read] if ending in mesh.ENDINGS else [formats.read, emotion.read]
    if ending == ".npz":
        readers.append(formats.read)
    for read in readers:
        with pytest.raises(InputError, match="named pipe"):
            read(path)


def test_a_budget_is_a_setting_that_its_error_names(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("[" * 70 + "]" * 70)
    with pytest.raises(InputError, match="has 70, expected at most 64 .*A2F_BUDGET_JSON_DEPTH"):
        budgets.load_json(path)
    monkeypatch.setenv("A2F_BUDGET_JSON_DEPTH", "80")
    budgets.load_json(path)
    for text in ("many", "", "-1", "nan"):
        monkeypatch.setenv("A2F_BUDGET_JSON_DEPTH", text)
        with pytest.raises(InputError, match="A2F_BUDGET_JSON_DEPTH=.*expected a number above 0"):
            budgets.load_json(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[" * 100_000, "nesting"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nesting"),
        (b"1" * 30, "64 bits"),
        (b"1" * 9000, "not JSON"),
        (rb'{"name": "\ud800"}', "surrogates"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"", "not JSON"),
        (b"[0,]", "not JSON"),
    ],
)
def test_json_beyond_the_budgets_is_one_line(text, expected):
    with pytest.raises(InputError, match=f"x.json: .*{expected}") as error:
        budgets.parse_json(text, name="x.json")
    say(error)


def test_json_of_any_encoding_is_read():
    value = {"é[[": [1, -0.5, "[" * 100, 123456789012345678]}
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        text = json.dumps(value, ensure_ascii=False).encode(encoding)
        assert budgets.parse_json(text, name="x") == value


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[" * 64 + "]" * 64, False),
        ('{"a":' * 65 + "1" + "}" * 65, True),
        ("[" + "[{}]," * 5000 + "[]]", False),
        (json.dumps(["]" * 100, "[" * 100, '"[' * 100, "\\[" * 100]), False),
        ("[" * 40 + json.dumps("]" * 9) + "," + "[" * 40 + "]" * 80, True),
    ],
)
def test_levels_are_counted_outside_of_strings(text, deep):
    if deep:
        with pytest.raises(InputError, match="levels of nesting"):
            budgets.check_depth(text.encode(), "x")
    else:
        budgets.check_depth(text.encode(), "x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_long_numbers_are_found_in_every_encoding(encoding):
    most = 2**63 - 1
    assert budgets.parse_json(f"[{most}, 0.{'1' * 30}]".encode(encoding), name="x")[0] == most
    with pytest.raises(InputError, match="64 bits"):
        budgets.parse_json(f"[{most + 1}]".encode(encoding), name="x")


def test_checks_cost_less_than_parsing():
    clip = {"id": "s0/000001", "sentence": "words of a sentence", "frames": 120, "split": "train"}
    text = json.dumps({"shards": [{"clips": [clip] * 20_000}]}).encode()

    def cost(parse):
        best = math.inf
        for _ in range(5):
            began = time.process_time()
            parse()
            best = min(best, time.process_time() - began)
        return best

    # Measured: 1.2 to 1.4 times the time of json.loads.
    assert cost(lambda: budgets.parse_json(text, name="x")) < 2 * cost(lambda: json.loads(text))


def test_text_has_a_number_of_cells_and_a_size(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("time,jawOpen\n" + "0,1\n" * 600)
    monkeypatch.setenv("A2F_BUDGET_VALUES_MILLIONS", "0.001")
    with pytest.raises(InputError, match="A2F_BUDGET_VALUES_MILLIONS"):
        formats.read(path)
    monkeypatch.setenv("A2F_BUDGET_TEXT_MB", "0.001")
    with pytest.raises(InputError, match="A2F_BUDGET_TEXT_MB"):
        formats.read(path)
    os.truncate(path, 1 << 40)  # It has no blocks on the disk.
    with pytest.raises(InputError, match="MB in a text file"):
        formats.read(path)


def npy(shape, descr="<f4", data=b"\0" * 48):
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (npy((10**12, 3)), "its header states"),
        (npy((10**15,), "<U0", b""), "its header states"),
        (npy((3, 4, 10**9, 0)), "its header states"),
        (npy((3, 4))[:-1], "its header states"),
        (npy((6,), "|O"), "pickled objects"),
        (b"\x93NUMPY\x09\x00", "version 9"),
        # Text that Python's parser and tokenizer refuse.
        (npy((6,)).replace(b"}", b" "), "its header cannot be parsed"),
        (npy((6,)).replace(b"descr", b"(((((").replace(b"'", b"("), "its header cannot be parsed"),
        (b"", "truncated or damaged"),
        (b"\x80\x04pickle", "pickled objects"),
        (b"PK\x03\x04", "name it .npz"),
    ],
)
def test_arrays_have_the_size_of_their_file(tmp_path, data, expected):
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    for mmap in (False, True):
        with pytest.raises(InputError, match=f"x.npy: .*{expected}") as error:
            archives.load_npy(path, mmap=mmap)
        say(error)


def test_archives_are_read_as_numpy_reads_them(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("mm"), "c": np.zeros((0, 3))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        with archives.load_npz(tmp_path / "x.npz") as found:
            assert found.files == list(arrays) and "a" in found and found.get("d") is None
            assert found.shape("a") == (2, 3)
            for name, value in found.items():
                np.testing.assert_array_equal(value, arrays[name])
            with pytest.raises(KeyError):
                found["d"]


def zip_of(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def stating(data, size):
    """The same archive, whose directory states another unpacked size."""
    at = data.index(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<I", size) + data[at + 28 :]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (stating(zip_of({"a.npy": npy((3, 4))}), 0xFFFFFFF0), "A2F_BUDGET_UNPACKED_RATIO"),
        (zip_of({"word/document.xml": b"<a/>"}), "holds word/document.xml"),
        (zip_of({}), "holds nothing"),
        (npy((3, 4)), "is one array"),
        (b"\x80\x04pickle", "pickled objects"),
        (b"PK\x03\x04", "not a zip archive"),
        (b"text", "another kind of file"),
        (zip_of({"a.npy": b""}, zipfile.ZIP_LZMA), "not deflated"),
        (zip_of({"a.npy": npy((6,), "|O")}), "pickled objects"),
        (zip_of({"a.npy": npy((10**12,))}), "its header states"),
        (zip_of({"a.npy": npy((3, 4))}).replace(b"\0" * 48, b"\1" * 48), "CRC"),
    ],
)
def test_archives_that_are_none_or_too_large_are_one_line(tmp_path, data, expected):
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    with (
        pytest.raises(InputError, match=f"x.npz: .*{expected}") as error,
        archives.load_npz(path) as x,
    ):
        x["a"]
    say(error)


def test_compressed_zeros_are_refused_by_their_ratio(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, vertices=np.zeros((200_000, 3)))
    mesh_error = "all vertices are at one point"  # What unpacks to little is read.
    with pytest.raises(InputError, match=mesh_error):
        mesh.read(path)
    monkeypatch.setattr(budgets, "_UNPACKED_FREELY", 1e6)
    began = time.process_time()
    with pytest.raises(InputError, match="times the size of the file.*A2F_BUDGET_UNPACKED_RATIO"):
        mesh.read(path)
    assert time.process_time() - began < 0.5


def test_a_track_has_a_number_of_frames():
    """Three rows that are ten years apart."""
    track = tracks.Track(np.zeros((3, 72)), np.array([0.0, 0.02, 3e8]), np.ones(72, bool))
    with pytest.raises(InputError, match="frames.*A2F_BUDGET_FRAMES_MILLIONS"):
        track.resampled()


@pytest.mark.parametrize(
    "properties", ["", "property float x\nproperty float y\nproperty float z\n"]
)
def test_a_mesh_has_no_more_elements_than_bytes(tmp_path, properties):
    path = tmp_path / "x.ply"
    for form in ("ascii", "binary_little_endian"):
        head = f"ply\nformat {form} 1.0\nelement vertex 999999999999\n{properties}end_header\n"
        path.write_text(head + "0 0 0\n")
        with pytest.raises(InputError, match="999999999999 of vertex"):
            mesh.read(path)


def test_a_closed_pipe_is_no_error():
    """`a2fjax config | head -1`: with buffered output the pipe is closed before the first write."""
    command = f"{sys.executable} -m a2fjax.cli.main config | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
