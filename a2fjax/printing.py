"""Text that comes from files, made safe to print: control characters are escaped, secrets hidden.

Names and messages come from captures, archives, manifests and logs that somebody else made. Control
characters in them could hide or rewrite lines of a terminal, and a spreadsheet would run cells that
begin with "=". `safe_output` covers everything that a command prints.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_CONTROL = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # all but tab and newline
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff"  # bytes of file names that are not UTF-8
    "\U000e0000-\U000e007f"
    "]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

_PASSWORD = re.compile(r"(?P<keep>\b[a-zA-Z][\w+.-]*://[^\s/@:]*:)[^\s/@]+(?=@)")
_TOKEN = re.compile(
    r"""(?x)
    (?<![\w-])(
      hf_[A-Za-z0-9]{30,} | gh[pousr]_[A-Za-z0-9]{30,} | github_pat_\w{30,} | glpat-[\w-]{20,}
      | sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{24,} | xox[abeprs]-\d[\w-]{10,}
      | (AKIA|ASIA)[A-Z0-9]{16} | AIza[\w-]{30,} | wandb_v\d_\w{30,}
      | eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*
    )
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----
    """
)
_BEARER = re.compile(r"(?i)(?P<keep>\bbearer\s+)[\w.~+/=-]{16,}")
_NAMED = re.compile(
    r"""(?ix)
    (?:^|[-_.])
    (?:(?:api|access|auth|private|secret)[-_]?key|[a-z]*token
       |secret|password|passwd|passphrase|credentials?)$
    """
)
_PLAIN = re.compile(r"(?i)|true|false|none|null|[+-]?\d+(\.\d+)?")
HIDDEN = "***"


def printable(text: str) -> str:
    r"""Returns a text with control characters escaped, except tabs and newlines.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def cell(value: Any) -> str:
    """Returns a value as the text of a table's cell, on one line."""
    return printable(str(value)).replace("\t", "\\t").replace("\n", "\\n")


def csv_cell(value: Any) -> Any:
    """Returns a value such that no spreadsheet takes it for a formula; numbers stay numbers.

    Example:
        >>> csv_cell("=1+1"), csv_cell("-3e-4"), csv_cell(-2)
        ("'=1+1", '-3e-4', -2)
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def redact(text: str) -> str:
    """Returns a text in which tokens and the passwords of URLs are replaced by `HIDDEN`.

    Example:
        >>> redact("cannot read https://me:pw@host/a")
        'cannot read https://me:***@host/a'
    """
    if "://" in text:
        text = _PASSWORD.sub(rf"\g<keep>{HIDDEN}", text)
    text = _BEARER.sub(rf"\g<keep>{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def secret_in(name: str, value: Any) -> str:
    """Returns what makes a value look like a secret, its name or its form; "" if nothing does.

    Args:
      name: name of the value, such as a variable, a flag or a key; "" for none.
      value: the value; only texts can be secrets.
    """
    if not isinstance(value, str):
        return ""
    if _PASSWORD.search(value):
        return "a URL with a password"
    if _TOKEN.search(value) or _BEARER.search(value):
        return "a token"
    if _NAMED.search(name.strip()) and not _PLAIN.fullmatch(value):
        return f"a value named {name}"
    return ""


class _SafeStream:
    """A text stream that passes on what is written to it, escaped and without secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # A carriage return at the start is that of a progress line: nothing before it is hidden.
        start = "\r" if text.startswith("\r") else ""
        self._stream.write(start + printable(redact(text[len(start) :].replace("\r\n", "\n"))))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Escapes control characters and hides secrets in everything that the block prints."""
    before = sys.stdout, sys.stderr
    safe: Any = tuple(_SafeStream(stream) for stream in before)
    sys.stdout, sys.stderr = safe
    try:
        yield
    finally:
        # A command whose reader went away has replaced its output for good.
        if sys.stdout is safe[0]:
            sys.stdout = before[0]
        if sys.stderr is safe[1]:
            sys.stderr = before[1]
