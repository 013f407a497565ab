"""What comes from files cannot control a terminal, run in a spreadsheet, or show a secret."""

import io
import pickle
import sys

import pytest

from a2fjax import printing
from a2fjax.errors import InputError, WorkFailed
from a2fjax.view import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\x9b31m", "\\x9b31m"),
        ("\x00\x07\x08\x7f", "\\x00\\x07\\x08\\x7f"),
        ("a\rb", "a\\rb"),
        ("take\u202egnp.exe", "take\\u202egnp.exe"),
        ("\u2028\ufeff", "\\u2028\\ufeff"),
        ("caf\udce9", "caf\\udce9"),
        ("tab\tnew\nline ü 日本 می‌خواهم 👩‍🎤", "tab\tnew\nline ü 日本 می‌خواهم 👩‍🎤"),
    ],
)
def test_control_characters_are_escaped(raw, shown):
    assert printing.printable(raw) == shown
    for kind in (InputError, WorkFailed):
        error = kind(f"{raw}: no such file")
        assert str(error) == f"{shown}: no such file"
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_cell_of_a_table_is_one_line():
    lines = text.table([["a\n\x1b[31mforged", "1\t2"]], ["name", "value"])
    assert len(lines) == 2 and "a\\n\\x1b[31mforged" in lines[1] and "1\\t2" in lines[1]


@pytest.mark.parametrize("number", ["-1", "+2.5", "-3e-4", "-.5", "1", "", "plain", "a=b"])
def test_numbers_and_plain_text_stay_as_they_are(number):
    assert printing.csv_cell(number) == number
    assert printing.csv_cell(-2.5) == -2.5 and printing.csv_cell(None) is None


@pytest.mark.parametrize(
    "formula", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-inf", "-1 or"]
)
def test_formulas_are_quoted(formula):
    assert printing.csv_cell(formula) == f"'{formula}"


SECRETS = [
    ("https://me:s3cret@host/x", "https://me:***@host/x"),
    ("postgres+ssl://u:p%40w@db:5432", "postgres+ssl://u:***@db:5432"),
    ("hf_" + "A1b2" * 8, "***"),
    ("ghp_" + "A1b2" * 9, "***"),
    ("github_pat_" + "A1b2_" * 9, "***"),
    ("glpat-" + "A1b2" * 5, "***"),
    ("sk-proj-" + "A1b2" * 8, "***"),
    ("AKIA" + "ABCD" * 4, "***"),
    ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "***"),
    ("Authorization: Bearer abcdef0123456789abcd", "Authorization: Bearer ***"),
]


@pytest.mark.parametrize(("raw", "shown"), SECRETS)
def test_secrets_are_recognised_by_their_form(raw, shown):
    assert printing.redact(f"x {raw} y") == f"x {shown} y"
    assert printing.secret_in("", raw)


@pytest.mark.parametrize(
    "harmless",
    [
        "https://host:8080/a@b",
        "https://me@host/x",
        "a2f-0123456789abcdef",
        "0" * 64,
        "sk-learn-random-forest",
        "runs/hf_wav2vec2_large_experiment",
        "ghp_short",
    ],
)
def test_what_is_no_secret_is_kept(harmless):
    assert printing.redact(harmless) == harmless and not printing.secret_in("", harmless)


def test_secrets_are_recognised_by_their_name():
    for name in ("--token", "HF_TOKEN", "db.password", "--api-key", "aws_secret_access_key"):
        assert printing.secret_in(name, "abc"), name
        assert not printing.secret_in(name, "12") and not printing.secret_in(name, 12)
    for name in ("token_width", "tokens", "key", "--keyframes", "monkey"):
        assert not printing.secret_in(name, "abc"), name


def test_everything_that_a_command_prints_is_safe(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with printing.safe_output():
        print("a\x1b[2J", "https://me:pw@host/")
        print("\r50 %", end="", file=sys.stderr)
        sys.stdout.writelines(["b\x07\n", "windows\r\n"])
        assert not sys.stdout.isatty()
    assert out.getvalue() == "a\\x1b[2J https://me:***@host/\nb\\x07\nwindows\n"
    assert err.getvalue() == "\r50 %" and sys.stdout is out
