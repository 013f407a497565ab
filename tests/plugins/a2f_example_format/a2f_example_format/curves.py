"""A line with the rate and the names of columns, then a line of numbers a frame."""

from fractions import Fraction

import numpy as np

from a2fjax import channel_orders
from a2fjax.animation.tracks import Track


class CurvesFormat:
    order = "arkit52"
    takes = ("order", "names_map")

    def __init__(self, path, header):
        self._columns = header.columns
        self._file = open(path, "w", encoding="utf-8")
        self._file.write(" ".join([str(header.fps), *header.columns.names]) + "\n")

    def write(self, motion):
        for row in self._columns.values(motion):
            self._file.write(" ".join(f"{value:.6f}" for value in row) + "\n")

    def close(self):
        self._file.close()

    abandon = close

    @staticmethod
    def read(path):
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        fps, *names = head.split()
        motion, observed = channel_orders.from_names(np.loadtxt(lines, ndmin=2), names)
        return Track(motion, np.arange(len(motion)) / float(Fraction(fps)), observed)
