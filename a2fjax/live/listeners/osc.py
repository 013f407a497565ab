"""OSC 1.0 (opensoundcontrol.stanford.edu/spec-1_0.html): plain values, and VMC's Perfect Sync.

Plain: a message `/a2fjax/NAME f` a channel, and `/a2fjax/head fff` in degrees. VMC protocol
(protocol.vmc.info/english): `/VMC/Ext/Blend/Val sf` for each of Apple's 52 names, then
`/VMC/Ext/Blend/Apply`. Messages of a frame share bundles that fit a datagram of Ethernet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from a2fjax import rig
from a2fjax.live.listeners import addresses
from a2fjax.live.session import Frame

LARGEST = 1400
"""Bytes of a bundle."""

_BUNDLE = b"#bundle\0" + struct.pack("!Q", 1)  # Time tag 1: at once.


class Osc:
    """Sends each channel under its own address; the target is HOST:PORT."""

    where = "--osc"

    def __init__(self, target: str):
        """Finds the host.

        Raises:
          InputError: another form, or a host that does not exist.
        """
        self._socket, self._address = addresses.udp_socket(target, where=self.where)

    def send(self, frame: Frame) -> None:
        """Sends a frame."""
        for data in bundles(self.messages(frame)):
            self._socket.sendto(data, self._address)

    def messages(self, frame: Frame) -> list[bytes]:
        """Returns the messages of a frame."""
        values = zip(rig.CHANNELS, frame.motion.tolist(), strict=True)
        return [
            *(message(f"/a2fjax/{name}", value) for name, value in values),
            message("/a2fjax/head", *frame.head.tolist()),
        ]

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class Vmc(Osc):
    """Sends Perfect Sync to VMC programs, VSeeFace and others, mostly on port 39539."""

    where = "--vmc"

    def messages(self, frame: Frame) -> list[bytes]:
        """Returns the messages of a frame."""
        values = zip(rig.ARKIT, frame.motion.tolist(), strict=False)
        return [
            *(message("/VMC/Ext/Blend/Val", n[0].upper() + n[1:], value) for n, value in values),
            message("/VMC/Ext/Blend/Apply"),
        ]


def message(address: str, *values: str | float) -> bytes:
    r"""Returns a message.

    Example:
        >>> message("/a", "b", 0.5)
        b'/a\x00\x00,sf\x00b\x00\x00\x00?\x00\x00\x00'
    """
    tags = "," + "".join("s" if isinstance(value, str) else "f" for value in values)
    data = [_text(v) if isinstance(v, str) else struct.pack("!f", v) for v in values]
    return _text(address) + _text(tags) + b"".join(data)


def bundles(messages: Sequence[bytes]) -> list[bytes]:
    """Returns messages in bundles of at most `LARGEST` bytes, in order."""
    out, current = [], _BUNDLE
    for each in messages:
        element = struct.pack("!i", len(each)) + each
        if len(current) + len(element) > LARGEST and current != _BUNDLE:
            out.append(current)
            current = _BUNDLE
        current += element
    return [*out, current]


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return data + b"\0" * (-len(data) % 4)
