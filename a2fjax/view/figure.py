"""A take as a picture: sound, lips, the curves that move most, emotion and the solve's residual."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.audio.level import frame_levels
from a2fjax.errors import InputError
from a2fjax.view.take import Take

_INK, _FAINT, _GRID = "#333333", "#888888", "#e4e4e4"
_SOUND, _LOUD, _BAD = "#a9bfcc", "#c44e00", "#b0b0b0"
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
_EMOTIONS = ("#cccccc", "#ffbf00", "#d62728", "#1f77b4", "#9467bd")
_ROWS = (
    ("jaw", "weight", rig.GROUPS["jaw"], 3),
    ("mouth", "weight", rig.GROUPS["mouth"], 5),
    ("cheeks\nand nose", "weight", rig.GROUPS["cheeks_nose"], 3),
    ("brows", "weight", rig.GROUPS["brows"], 4),
    ("eyes", "weight", np.setdiff1d(rig.GROUPS["eyes"], rig.ANGLE_CHANNELS), 4),
    ("gaze", "degrees", rig.ANGLE_CHANNELS, 4),
    ("tongue", "weight", rig.GROUPS["tongue"], 4),
)
_LEAST_RANGE = 0.05
"""Curves whose 1st and 99th percentile are closer than this (or 1.5 degrees) do not move."""
_COLUMNS = 2400
_QUIET_DB = -80.0


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of the picture: a channel, or the mean of a left and a right one."""

    label: str
    values: np.ndarray
    span: float


def main_curves(take: Take, channels: np.ndarray, most: int) -> list[Curve]:
    """Returns the observed curves of a group that move most over the good frames.

    A left and a right channel that move as one (their difference has less than a tenth of their
    range) become their mean.

    Args:
      take: whose curves.
      channels: indices of the group.
      most: number of curves at most.
    """
    good = take.frame_mask if take.frame_mask.any() else np.ones_like(take.frame_mask)

    def span(values: np.ndarray) -> float:
        low, high = np.percentile(values[good], [1, 99])
        return float(high - low)

    found: list[Curve] = []
    done: set[int] = set()
    for i in channels.tolist():
        if i in done or not take.channel_mask[i]:
            continue
        own, label = take.motion[:, i], rig.CHANNELS[i]
        twin = int(rig.MIRROR_SOURCE[i])
        if twin != i and twin in channels and take.channel_mask[twin]:
            other = take.motion[:, twin]
            if span(own - other) < 0.1 * max(span(own), span(other)):
                done.add(twin)
                own = (own + other) / 2
                label = label.replace("Left", "").replace("Right", "").replace("rightE", "e")
                label += " (both)"
        found.append(Curve(label, own, span(own)))
    least = _LEAST_RANGE * float(rig.SCALE[channels[0]])
    moving = [curve for curve in found if curve.span > least]
    return sorted(moving, key=lambda curve: -curve.span)[:most]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drawn take.

    Attributes:
      data: the file.
      left, right: where the time axis begins and ends, as shares of the width.
    """

    data: bytes
    left: float
    right: float


def picture(
    take: Take,
    *,
    start: float = 0.0,
    format: str = "png",
    dpi: int = 110,
    widest: float = 20.0,
) -> Picture:
    """Draws a take.

    Args:
      take: to be drawn; at least two frames.
      start: second at which it starts, for the time axis.
      format: of `savefig`: png, pdf or svg.
      dpi: of a png.
      widest: inches; longer takes are squeezed into it.

    Raises:
      InputError: matplotlib is not there.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError(
            "pictures need the extra `view`: pip install 'a2fjax[view]' (matplotlib is missing)"
        ) from None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(n, u, main_curves(take, c, most)) for n, u, c, most in _ROWS]
    drawn = [row for row in rows if row[2]]
    emotional = bool((take.emotion[take.frame_mask, 0] < 0.999).any())
    fitted = take.residual is not None
    changes = bool(np.ptp(take.emotion, axis=0).max() > 0.01)
    heights = [1.3, 1.3, *[1.0] * len(drawn), *[0.7 if changes else 0.3] * emotional]
    heights += [0.8] * fitted
    width = float(np.clip(take.seconds * 0.45, 11, widest))
    tall = 0.95 * sum(heights) + 1.1
    with matplotlib.rc_context({"font.family": ["DejaVu Sans"], "font.size": 9}):
        figure = Figure(figsize=(width, tall))
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        left, right = 1.15 / width, 1 - 2.1 / width
        figure.subplots_adjust(left, 0.5 / tall, right, 1 - 0.62 / tall, hspace=0.14)
        times = start + np.arange(len(take.motion)) / rig.FPS
        _sound(axes[0], take, times)
        _lips(axes[1], take, times)
        for axis, (name, unit, curves) in zip(axes[2:], drawn, strict=False):
            for curve, colour in zip(curves, _COLOURS, strict=False):
                _line(axis, times, _seen(take, curve.values), curve.label, colour)
            _style(axis, name if unit == "weight" else f"{name}\n({unit})")
            low = min(float(_seen(take, c.values)[take.frame_mask].min(initial=0)) for c in curves)
            high = max(float(_seen(take, c.values)[take.frame_mask].max(initial=0)) for c in curves)
            margin = 0.06 * max(high - low, 0.05)
            axis.set_ylim(low - margin, high + margin)
        if emotional:
            _emotion(axes[2 + len(drawn)], take, times)
        if fitted:
            _residual(axes[-1], take, times)
        for axis in axes:
            _shade(axis, take, start)
        axes[-1].set_xlabel("seconds", color=_INK)
        axes[-1].set_xlim(start, start + take.seconds)
        axes[-1].locator_params(axis="x", nbins=max(6, int(width)))
        _caption(figure, take, rows, left, tall)
        stream = io.BytesIO()
        figure.savefig(stream, format=format, dpi=dpi)
    return Picture(stream.getvalue(), left, right)


def _caption(figure: Any, take: Take, rows: list[Any], left: float, tall: float) -> None:
    unseen: list[str] = []
    still: list[str] = []
    for (name, _, curves), (_, _, channels, _) in zip(rows, _ROWS, strict=True):
        if not curves:
            plain = name.replace("\n", " ")
            (still if take.channel_mask[channels].any() else unseen).append(plain)
    notes = []
    if unseen:
        notes.append(f"not observed: {', '.join(unseen)}")
    if still:
        notes.append(f"still: {', '.join(still)}")
    if not take.frame_mask.all():
        bad = (~take.frame_mask).sum() / rig.FPS
        notes.append(f"{bad:.2f} s of masked frames are shaded")
    if take.cuts:
        notes.append("dotted: one clip ends, the next begins")
    top = 1 - 0.12 / tall
    name, _, rest = take.title.partition(" · ")
    figure.text(left, top, name, ha="left", va="top", fontsize=12, color=_INK, weight="bold")
    figure.text(left, 1 - 0.34 / tall, rest, ha="left", va="top", fontsize=8.5, color=_INK)
    if notes:
        figure.text(
            left, 0.04 / tall, " · ".join(notes), ha="left", va="bottom", fontsize=8, color=_FAINT
        )


def _seen(take: Take, values: np.ndarray) -> np.ndarray:
    return np.where(take.frame_mask, values, np.nan)


def _shade(axis: Any, take: Take, start: float) -> None:
    edges = np.flatnonzero(np.diff(np.r_[False, ~take.frame_mask, False].astype(int)))
    for a, b in edges.reshape(-1, 2):
        axis.axvspan(
            start + a / rig.FPS, start + b / rig.FPS, color=_BAD, alpha=0.35, linewidth=0, zorder=0
        )
    for cut in take.cuts:
        if start < cut < start + take.seconds:
            axis.axvline(cut, color=_FAINT, linewidth=0.8, linestyle=":")


def _step(count: int) -> int:
    return max(1, count // _COLUMNS)


def _sound(axis: Any, take: Take, times: np.ndarray) -> None:
    hop = HOP // 4 * _step(4 * len(times))  # 5 ms a column, more for long takes
    count = len(take.audio) // hop
    parts = take.audio[: count * hop].reshape(count, hop)
    at = times[0] + np.arange(count) * hop / (HOP * rig.FPS)
    axis.fill_between(at, parts.min(1), parts.max(1), color=_SOUND, linewidth=0.4, step="post")
    peak = max(float(np.abs(take.audio).max(initial=0.0)), 1e-3)
    axis.set_ylim(-1.1 * peak, 1.1 * peak)
    _style(axis, "sound", legend=False)
    loud = axis.twinx()
    level = np.maximum(_loudness(take), _QUIET_DB)
    _line(loud, times[: len(level)], level, "loudness", _LOUD, width=0.9)
    loud.set_ylim(_QUIET_DB, 0)
    loud.set_yticks([-60, -40, -20, 0])
    loud.set_ylabel("dB", rotation=0, fontsize=8, color=_LOUD, labelpad=8)
    loud.tick_params(labelsize=7.5, colors=_LOUD, length=2)
    for side in loud.spines.values():
        side.set_visible(False)


def _loudness(take: Take) -> np.ndarray:
    """Returns the level of each frame [T] in dB of full scale, at least -100."""
    return 20 * np.log10(np.maximum(frame_levels(take.audio)[:, 0], 1e-5))


def _lips(axis: Any, take: Take, times: np.ndarray) -> None:
    """Aperture over the loudness: whether sound and picture belong together shows here."""
    level = 10 ** (_loudness(take) / 20)
    loudest = max(float(np.percentile(level, 99.5)), 1e-4)
    parts = [i for i in np.flatnonzero(rig.APERTURE) if take.channel_mask[i]]
    gap = _seen(take, take.motion[:, parts] @ rig.APERTURE[parts])
    tallest = max(float(np.nanmax(np.where(take.frame_mask, gap, np.nan), initial=0.0)), 0.05)
    step = _step(len(level))
    axis.fill_between(
        times[: len(level) : step],
        0,
        np.minimum(level / loudest, 1.1)[::step] * tallest,
        color=_LOUD,
        alpha=0.18,
        linewidth=0,
        label="loudness",
    )
    jaw = rig.INDEX["jawOpen"]
    if take.channel_mask[jaw]:
        _line(axis, times, gap, "aperture", "#000000", width=1.2)
    lowest = min(0.0, float(np.nanmin(gap, initial=0.0)))
    axis.set_ylim(lowest - 0.05 * tallest, 1.12 * tallest)
    _style(axis, "lips")


def _line(
    axis: Any, times: np.ndarray, values: np.ndarray, label: str, colour: str, width: float = 1.1
) -> None:
    step = _step(len(times))
    if step > 1:
        # An overview: the middle of each stretch, and how far the curve goes there.
        count = len(values) // step
        with np.errstate(all="ignore"):
            parts = values[: count * step].reshape(count, step)
            times = times[: count * step : step]
            axis.fill_between(
                times, parts.min(1), parts.max(1), color=colour, alpha=0.25, linewidth=0
            )
            values = parts.mean(1)
    axis.plot(times, values, color=colour, label=label, linewidth=width)


def _emotion(axis: Any, take: Take, times: np.ndarray) -> None:
    step = _step(len(times))
    present = np.flatnonzero(take.emotion.any(0))
    axis.stackplot(
        times[::step],
        take.emotion[::step, present].T,
        labels=[rig.EMOTIONS[i] for i in present],
        colors=[_EMOTIONS[i] for i in present],
        linewidth=0,
    )
    _style(axis, "emotion")
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 1])


def _residual(axis: Any, take: Take, times: np.ndarray) -> None:
    assert take.residual is not None
    values = _seen(take, take.residual)
    known = values[np.isfinite(values)]
    _line(axis, times, values, "of the solve", "#444444")
    if len(known):
        axis.axhline(
            np.median(known), color=_COLOURS[0], linewidth=0.8, linestyle="--",
            label=f"median {np.median(known):.2f}",
        )  # fmt: skip
        axis.set_ylim(0, 1.15 * max(float(known.max()), 1e-3))
    _style(axis, "residual\n(mm)")


def _style(axis: Any, name: str, *, legend: bool = True) -> None:
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=_INK)
    axis.set_axisbelow(True)
    axis.grid(True, color=_GRID, linewidth=0.5)
    axis.tick_params(labelsize=7.5, colors=_INK, length=2)
    axis.locator_params(axis="y", nbins=4)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(_FAINT)
    if legend:
        axis.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False,
            handlelength=1.4, labelspacing=0.25, borderaxespad=0.4,
        )  # fmt: skip
