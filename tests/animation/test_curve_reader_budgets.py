"""Tables that a few kilobytes ask for are refused before they are filled."""

import json
import os

import pytest

from a2fjax.animation import curve_reader, text_files
from a2fjax.errors import InputError

ROWS = 60  # and as many columns


def sparse_json(path):
    path.write_text(json.dumps([{"jawOpen": 0.1, f"jawOpen{n}": 0.1} for n in range(ROWS)]))


def blank_csv(path):
    names = ",".join(f"c{n}" for n in range(ROWS))
    path.write_text(f"jawOpen,{names}\n" + "0\n" * ROWS)


def untracked_face_cap(path):
    names = ",".join(f"c{n}" for n in range(ROWS))
    path.write_text(f"bs,jawOpen,{names}\n" + "".join(f"k,{n}\n" for n in range(ROWS)))


def sparse_packets(path):
    known = "jawOpen-1|jawLeft-1|jawRight-1"
    path.write_text("".join(f"{known}|x{chr(97 + n % 26)}{n}y-1\n" for n in range(ROWS)))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.json", sparse_json),
        ("x.csv", blank_csv),
        ("x.txt", untracked_face_cap),
        ("x.txt", sparse_packets),
    ],
)
def test_a_table_that_is_mostly_filled_up(tmp_path, monkeypatch, name, write):
    write(tmp_path / name)
    monkeypatch.setenv("A2F_BUDGET_VALUES_MILLIONS", "0.003")
    with pytest.raises(InputError, match=f"{name}: has 0.00.*VALUES_MILLIONS"):
        curve_reader.read(tmp_path / name)


def test_more_frames_than_a_track_may_have(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("time,jawOpen\n" + "".join(f"{n},0.1\n" for n in range(20)))
    monkeypatch.setenv("A2F_BUDGET_FRAMES_MILLIONS", "0.00001")
    with pytest.raises(InputError, match="x.csv: has 2e-05.*FRAMES_MILLIONS"):
        curve_reader.read(path)


def test_a_packet_with_a_long_run_of_spaces_is_refused_at_once(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("jawOpen-1|jawLeft-1|jawRight-1|a" + " " * 300_000 + "x\n")
    with pytest.raises(InputError, match=":1: 'a  .*expected name-value"):
        curve_reader.read(path)


def test_a_pipe_is_not_opened(tmp_path):
    path = tmp_path / "x.csv"
    os.mkfifo(path)
    assert text_files.read_head(path) == ""
    with pytest.raises(InputError, match="a named pipe"):
        curve_reader.read(path)
