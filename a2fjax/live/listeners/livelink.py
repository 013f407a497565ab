"""Unreal's Live Link Face datagrams: what Epic's phone app sends, port 11111 by default.

The layout, big-endian, as Unreal's AppleARKitFaceSupport reads it and open senders write it:

    uint8    6                    version
    text     device               int32 length, UTF-8
    text     subject              int32 length, UTF-8
    int32    frame                of the timecode
    float32  part of a frame
    int32    50, int32 1          frames a second as a fraction
    uint8    61                   number of values
    float32  x 61                 Apple's 52 weights, then yaw, pitch, roll of head, left, right eye

Apple's order has JawLeft before JawRight and MouthLeft before MouthRight, unlike the app's CSV.
Angles are in radians; yaw is positive to the face's right, pitch is positive down.
"""

from __future__ import annotations

import datetime
import struct
import uuid

import numpy as np

from a2fjax import channel_orders, rig
from a2fjax.live.listeners import addresses
from a2fjax.live.session import Frame

VERSION = 6
_LAYOUT = channel_orders.order("livelink61")
_ROTATIONS = _LAYOUT.names[52:]
NAMES = (*(name[0].upper() + name[1:] for name in rig.ARKIT), *_ROTATIONS)
"""Names of the 61 values in the order of datagrams."""
_COLUMNS = [_LAYOUT.names.index(name) for name in NAMES]
_HEAD_SIGNS = np.radians([-1.0, 1.0, 1.0])


class LiveLink:
    """Sends a datagram a frame.

    The target is HOST:PORT, or HOST:PORT/SUBJECT; the subject is "a2fjax" otherwise.
    """

    def __init__(self, target: str):
        """Finds the host.

        Raises:
          InputError: another form, or a host that does not exist.
        """
        address, _, subject = target.partition("/")
        self._socket, self._address = addresses.udp_socket(address, where="--livelink")
        self._subject = subject or "a2fjax"
        self._device = str(uuid.uuid4()).upper()
        self._midnight: float | None = None

    def send(self, frame: Frame) -> None:
        """Sends a frame; its timecode is the time of day of the first and counts on."""
        if self._midnight is None:
            now = datetime.datetime.now()
            begin = now.replace(hour=0, minute=0, second=0, microsecond=0)
            self._midnight = (now - begin).total_seconds() - frame.seconds
        seconds = self._midnight + frame.seconds
        data = packet(frame, seconds=seconds, device=self._device, subject=self._subject)
        self._socket.sendto(data, self._address)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def packet(frame: Frame, *, seconds: float, device: str, subject: str) -> bytes:
    """Returns the datagram of a frame.

    Args:
      frame: the frame.
      seconds: since midnight.
      device: identifies the sender.
      subject: name under which Unreal shows it.
    """
    values = _LAYOUT.from_rig(np.asarray(frame.motion)[None])[0][_COLUMNS]
    values[52:55] = frame.head * _HEAD_SIGNS
    whole, part = divmod(seconds * rig.FPS, 1.0)
    texts = b"".join(
        struct.pack("!i", len(data)) + data for data in (device.encode(), subject.encode())
    )
    return (
        struct.pack("!B", VERSION)
        + texts
        + struct.pack("!ifii", int(whole) % (86_400 * rig.FPS), part, rig.FPS, 1)
        + struct.pack("!B61f", len(NAMES), *values.tolist())
    )
