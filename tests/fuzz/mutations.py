"""Damages files by structure: each format is parsed, changed in one place and written again.

Every function takes a generator and returns the new bytes, so that a seed repeats a mutation.
"""

import copy
import io
import json
import os
import re
import socket
import struct
import zipfile
import zlib

import numpy as np

NUMBERS = (
    *(
        "nan",
        "inf",
        "-1",
        "0",
        "-0.0",
        "1e400",
        "-1e400",
        "1e30",
        "1e-300",
        "999999999999999999999",
    ),
    *(
        "2147483648",
        "-2147483649",
        "0x10",
        "1,5",
        "",
        " ",
        "٣",
        "1_000",
        "true",
        "\x00",
        "A" * 5000,
    ),
)
"""What stands in place of a number in a text."""


def deep(levels):
    """A list in a list, and so on."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


def hostile(rng):
    """A JSON value that few readers expect; `Raw` texts are beyond what `json.dumps` writes."""
    values = (
        *(None, True, False, -1, 0, 0.5, 1e308, -(2**63), 10**30, float("nan"), float("inf")),
        *("", "x" * 5000, "a\x00b", "\ud800", "../../../etc/passwd", "/dev/zero", "\x1b[31m", "1"),
        *([], {}, [[]], [None], {"": None}, list(range(1000)), deep(80), "=1+1", "nan"),
        *(["x"] * 100, {"a": {"b": {}}}, [1, "2"], [[1], [2, 3]], [{}], -5e-324),
    )
    return copy.deepcopy(values[rng.integers(len(values))])


def places(value, found=None):
    """All (container, key) pairs of a JSON value."""
    found = [] if found is None else found
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        found.append((value, key))
        if isinstance(each, dict | list):
            places(each, found)
    return found


def change_tree(value, rng):
    """Changes a JSON value in one place."""
    root = [copy.deepcopy(value)]
    every = places(root)
    # Shallow places matter most, but most places are deep.
    shallow = [p for p in every if not isinstance(p[0], list)] or every
    where = every if rng.random() < 0.5 else shallow
    container, key = where[rng.integers(len(where))]
    kind = rng.integers(8)
    if kind == 0 and len(container) > 1:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}s" if rng.random() < 0.5 else "n" * 5000] = container.pop(key)
    elif kind == 2 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind == 3 and isinstance(container[key], list):
        container[key] = container[key][::-1] + container[key]
    elif kind == 4 and isinstance(container[key], list):
        container[key] = dict(enumerate(map(str, container[key])))
    elif kind == 5 and isinstance(container[key], int | float):
        container[key] *= (-1, 10, 10**6, 10**12, 0)[rng.integers(5)]
    else:
        container[key] = hostile(rng)
    return root[0]


def change_json(data, rng):
    """Changes a JSON document, or how it is written."""
    kind = rng.integers(10)
    if kind == 0:
        return b"[" * int(10 ** rng.integers(1, 6))
    if kind == 1:
        return b'{"a":' * 3000 + b"1" + b"}" * 3000
    if kind == 2:
        return data.decode().encode(("utf-16", "utf-8-sig", "utf-32", "utf-7")[rng.integers(4)])
    if kind == 3:
        return change_text(data, rng)
    return json.dumps(change_tree(json.loads(data), rng)).encode()


def change_lines(data, rng):
    """Changes one line of a file of JSON lines."""
    lines = data.splitlines()
    at = rng.integers(len(lines))
    lines[at] = change_json(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def change_text(data, rng):
    """Replaces a number or word of a text, or damages its lines."""
    text = data.decode("utf-8", "surrogateescape")
    kind = rng.integers(9)
    lines = text.splitlines(keepends=True) or [""]
    at = int(rng.integers(len(lines)))
    words = list(re.finditer(r"-?\d[\d.eE+-]*", text)) if kind < 4 else []
    if words:
        for match in [words[i] for i in sorted(rng.integers(len(words), size=1 + kind))][::-1]:
            value = NUMBERS[rng.integers(len(NUMBERS))]
            text = text[: match.start()] + value + text[match.end() :]
        return text.encode("utf-8", "surrogateescape")
    if kind == 4:
        lines.insert(at, lines[at])
    elif kind == 5:
        del lines[at]
    elif kind == 6:
        lines[at] = lines[at].rstrip("\n") + ",x" * int(rng.integers(1, 4000)) + "\n"
    elif kind == 7:
        words = re.findall(r"[A-Za-z]\w+", text) or ["x"]
        word = words[rng.integers(len(words))]
        text = text.replace(word, ("", word[::-1], "\x00", "n" * 5000)[rng.integers(4)], 1)
        return text.encode("utf-8", "surrogateescape")
    else:
        return text[: int(rng.integers(len(text) + 1))].encode("utf-8", "surrogateescape")
    return "".join(lines).encode("utf-8", "surrogateescape")


def change_csv(data, rng):
    """Changes cells, columns or the separator of a table."""
    kind = rng.integers(8)
    rows = [line.split(",") for line in data.decode().splitlines()]
    row, column = int(rng.integers(len(rows))), int(rng.integers(len(rows[0])))
    if kind == 0:
        for each in rows:
            del each[column : column + 1]
    elif kind == 1:
        for each in rows:
            each.insert(column, each[min(column, len(each) - 1)])
    elif kind == 2:
        rows = rows[1:]
    elif kind == 3:
        rows = [rows[0], *rows[:0:-1]]
    elif kind == 4:
        return "\n".join(";".join(r).replace(".", ",") for r in rows).encode()
    elif kind == 5:
        rows[row][min(column, len(rows[row]) - 1)] = '"' + "x" * 200_000
    else:
        return change_text(data, rng)
    return "\n".join(",".join(r) for r in rows).encode()


def npy(array, **header):
    """A .npy file, with a header that states something else."""
    file = io.BytesIO()
    if header:
        values = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **header}
        np.lib.format.write_array_header_2_0(file, values)
        return file.getvalue() + array.tobytes()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def change_array(array, rng):
    """An array of another size, kind or content, as .npy bytes."""
    kind = rng.integers(12)
    if kind == 0:
        return npy(array, shape=(int(10 ** rng.integers(3, 16)), *array.shape[1:]))
    if kind == 1:
        return npy(np.array([{"a": 1}, None], object))
    if kind == 2:
        return npy(array, descr=("<U0", "|V0", "<M8[s]", "|S7", ">f2", "<c16")[rng.integers(6)])
    if kind == 3 and array.dtype.kind == "f":
        changed = array.copy().reshape(-1)
        changed[rng.integers(max(1, changed.size)) :] = (np.nan, np.inf, 1e38)[rng.integers(3)]
        return npy(changed.reshape(array.shape))
    if kind == 4:
        return npy(array[None])
    if kind == 5:
        return npy(array[..., :-1] if array.ndim else np.zeros(0))
    if kind == 6:
        return npy(array[:0] if array.ndim else array.reshape(1, 1))
    if kind == 7:
        return npy(np.array("x" * 5000))
    if kind == 8:
        return npy(np.zeros(array.shape, np.complex64))
    if kind == 9:
        return npy(array.astype(str))
    if kind == 10:
        return npy(np.zeros((4, 0, 3)))
    return npy(-array if array.dtype.kind in "if" else array.reshape(-1)[::-1])


def change_npy(data, rng):
    """Changes an array, or puts an archive in its place."""
    if rng.random() < 0.2:
        file = io.BytesIO()
        np.savez(file, a=np.zeros(3))
        return file.getvalue()
    if rng.random() < 0.2:
        return change_bytes(data, rng)
    return change_array(np.load(io.BytesIO(data)), rng)


def change_npz(data, rng):
    """Changes an array of an archive, its members, or the archive itself."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = names[rng.integers(len(names))]
    kind = rng.integers(10)
    if kind == 0:
        return change_bytes(data, rng)
    if kind == 1:
        return npy(np.zeros((5, 3)))
    if kind == 2:
        members = {"word/document.xml": b"<a/>" * 100, "[Content_Types].xml": b"<b/>"}
    elif kind == 3:
        del members[name]
    elif kind == 4:
        members[("n" * 5000, "a\x00b", "../x", "é")[rng.integers(4)] + ".npy"] = members[name]
    elif kind == 5 and rng.random() < 0.3:  # Writing it takes a second.
        members[name] = npy(np.zeros((40_000_000, 3), np.float32))[:300_000_000]
    else:
        members[name] = change_array(np.load(io.BytesIO(members[name])), rng)
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if kind == 5 or rng.random() < 0.3 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    out = file.getvalue()
    if kind == 6:  # A directory that states 4 GB for each member.
        out = re.sub(
            rb"(PK\x01\x02.{20})....", lambda m: m[1] + b"\xf0\xff\xff\xff", out, flags=re.DOTALL
        )
    return out


def change_glb(data, rng):
    """Changes the JSON part of a GLB file, or its bytes."""
    (size,) = struct.unpack("<I", data[12:16])
    text, rest = data[20 : 20 + size], data[20 + size :]
    if rng.random() < 0.2:
        return change_bytes(data, rng)
    text = change_json(text.rstrip(b" "), rng)
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + rest


def change_safetensors(data, rng):
    """Changes the header of a safetensors file, or its bytes."""
    (size,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.3:
        return change_bytes(data, rng)
    head = json.loads(data[8 : 8 + size])
    told = head.get("__metadata__", {}).get("encoder")
    if told and rng.random() < 0.6:
        head["__metadata__"]["encoder"] = change_json(told.encode(), rng).decode("utf-8", "replace")
        text = json.dumps(head).encode()
    else:
        text = json.dumps(change_tree(head, rng)).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def change_bytes(data, rng):
    """Flips bits, cuts, repeats, or writes extreme integers where headers have them."""
    out, size = bytearray(data), len(data)
    kind = rng.integers(5)
    if kind == 0 or size < 16:
        return bytes(out[: int(rng.integers(size + 1))])
    if kind == 1:
        at = int(rng.integers(size))
        out[at:at] = out[at : at + int(rng.integers(1, 4000))]
    elif kind == 2:
        for at in rng.integers(size, size=int(rng.integers(1, 20))):
            out[at] ^= 1 << int(rng.integers(8))
    else:
        at = int(rng.integers(min(size, 400) // 4)) * 4
        value = (0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x00FFFFFF)[rng.integers(6)]
        out[at : at + 4] = struct.pack("<I" if kind == 3 else ">I", value)
    return bytes(out[: max(size, len(out))])


def change_usda(data, rng):
    """Changes a USD text, or lets its layers refer to themselves and to many others."""
    kind = rng.integers(6)
    if kind == 0:
        layers = ", ".join(f"@./part{i}.usda@" for i in range(2000))
        return b"#usda 1.0\n(\n subLayers = [" + layers.encode() + b"]\n)\n"
    if kind == 1:
        child = 'def "{}" (\n references = </a{}>\n)\n{{\n}}\n'
        prims = "".join(
            f'def "a{i}"\n{{\n{child.format("l", i + 1)}{child.format("r", i + 1)}}}\n'
            for i in range(int(rng.integers(2, 60)))
        )
        return data + prims.encode()
    if kind == 2:
        return data + b'def "deep"\n{\n' * 3000 + b"}\n" * 3000
    return change_text(data, rng)


KINDS = {
    ".json": change_json, ".jsonl": change_lines, "journal.log": change_lines,
    ".csv": change_csv, ".npy": change_npy,
    ".npz": change_npz, ".glb": change_glb, ".safetensors": change_safetensors,
    ".usda": change_usda, ".obj": change_text, ".toml": change_text, ".xml": change_text,
    "metadata": change_json, "_METADATA": change_json, "_CHECKPOINT_METADATA": change_json,
}  # fmt: skip


REPLACED = ("fifo", "folder", "loop", "device", "socket", "empty", "sparse", "gone")
"""What `change_file` puts in a file's place."""


def change_file(path, rng):
    """Damages a file in place; returns what was done, as text."""
    if rng.random() < 0.12:
        return _replace(path, rng)
    change = KINDS.get(path.suffix.lower()) or KINDS.get(path.name) or change_bytes
    data = path.read_bytes()
    try:
        changed = change(data, rng)
    except (ValueError, IndexError, KeyError, TypeError, zlib.error):
        change, changed = change_bytes, change_bytes(data, rng)
    path.write_bytes(changed)
    return change.__name__


def _replace(path, rng):
    """Puts something else than a file of its kind in a file's place."""
    kind = REPLACED[rng.integers(len(REPLACED))]
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            before = os.getcwd()
            os.chdir(path.parent)  # Names of sockets are short.
            bound.bind(path.name[-80:])
            os.chdir(before)
    elif kind in ("empty", "sparse"):
        path.touch()
        if kind == "sparse":
            os.truncate(path, 1 << 40)
    return kind
