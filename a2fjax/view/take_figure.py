"""Figure of a take: audio, lips, most active curves, emotion and solver residual."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.audio.level import frame_levels
from a2fjax.view import drawing
from a2fjax.view.take import Take

_SOUND, _LOUD, _MASKED = "#a9bfcc", "#c44e00", "#b0b0b0"
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
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
"""Curves whose 1st and 99th percentile differ by less than this (or 1.5 degrees) are static."""
_QUIET_DB = -80.0


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve of the figure: a channel, or the mean of a left and a right channel."""

    label: str
    values: np.ndarray
    span: float


def main_curves(take: Take, channels: np.ndarray, most: int) -> list[Curve]:
    """Returns the observed curves of a group that vary most over the valid frames.

    A left and a right channel that move together (the range of their difference is below a tenth of
    theirs) are replaced by their mean.

    Args:
      take: the take.
      channels: channel indices of the group.
      most: maximum number of curves.
    """
    valid_mask = take.frame_mask if take.frame_mask.any() else np.ones_like(take.frame_mask)

    def span(values: np.ndarray) -> float:
        low, high = np.percentile(values[valid_mask], [1, 99])
        return float(high - low)

    curves: list[Curve] = []
    merged: set[int] = set()
    for i in channels.tolist():
        if i in merged or not take.channel_mask[i]:
            continue
        values, label = take.motion[:, i], rig.CHANNELS[i]
        twin = int(rig.MIRROR_SOURCE[i])
        if twin != i and twin in channels and take.channel_mask[twin]:
            other = take.motion[:, twin]
            if span(values - other) < 0.1 * max(span(values), span(other)):
                merged.add(twin)
                values = (values + other) / 2
                label = label.replace("Left", "").replace("Right", "").replace("rightE", "e")
                label += " (both)"
        curves.append(Curve(label, values, span(values)))
    least = _LEAST_RANGE * float(rig.SCALE[channels[0]])
    moving = [curve for curve in curves if curve.span > least]
    return sorted(moving, key=lambda curve: -curve.span)[:most]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drawn take.

    Attributes:
      data: content of the image file.
      left, right: start and end of the time axis, as fractions of the width.
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
      take: take with at least two frames.
      start: its start in seconds, for the time axis.
      format: png, pdf or svg.
      dpi: dots per inch of a png.
      widest: maximum width in inches; longer takes are compressed.

    Raises:
      InputError: matplotlib is not installed.
    """
    rows = [(n, u, main_curves(take, c, most)) for n, u, c, most in _ROWS]
    drawn = [row for row in rows if row[2]]
    emotional = bool((take.emotion[take.frame_mask, 0] < 0.999).any())
    fitted = take.residual is not None
    changes = bool(np.ptp(take.emotion, axis=0).max() > 0.01)
    heights = [1.3, 1.3, *[1.0] * len(drawn), *[0.7 if changes else 0.3] * emotional]
    heights += [0.8] * fitted
    width = float(np.clip(take.seconds * 0.45, 11, widest))
    tall = 0.95 * sum(heights) + 1.1
    figure = drawing.new_figure(width, tall)
    import matplotlib

    with matplotlib.rc_context(drawing.FONT):
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
                drawing.curve(axis, times, _valid(take, curve.values), curve.label, colour)
            drawing.style(axis, name if unit == "weight" else f"{name}\n({unit})")
            low = min(float(_valid(take, c.values)[take.frame_mask].min(initial=0)) for c in curves)
            high = max(
                float(_valid(take, c.values)[take.frame_mask].max(initial=0)) for c in curves
            )
            margin = 0.06 * max(high - low, 0.05)
            axis.set_ylim(low - margin, high + margin)
        if emotional:
            drawing.emotion(axes[2 + len(drawn)], times, take.emotion)
        if fitted:
            _residual(axes[-1], take, times)
        for axis in axes:
            _shade(axis, take, start)
        axes[-1].set_xlabel("seconds", color=drawing.INK)
        axes[-1].set_xlim(start, start + take.seconds)
        axes[-1].locator_params(axis="x", nbins=max(6, int(width)))
        _caption(figure, take, rows, left, tall)
        stream = io.BytesIO()
        figure.savefig(stream, format=format, dpi=dpi)
    return Picture(stream.getvalue(), left, right)


def _caption(figure: Any, take: Take, rows: list[Any], left: float, tall: float) -> None:
    unobserved: list[str] = []
    still: list[str] = []
    for (name, _, curves), (_, _, channels, _) in zip(rows, _ROWS, strict=True):
        if not curves:
            plain = name.replace("\n", " ")
            (still if take.channel_mask[channels].any() else unobserved).append(plain)
    notes = []
    if unobserved:
        notes.append(f"not observed: {', '.join(unobserved)}")
    if still:
        notes.append(f"still: {', '.join(still)}")
    if not take.frame_mask.all():
        masked = (~take.frame_mask).sum() / rig.FPS
        notes.append(f"{masked:.2f} s of masked frames are shaded")
    if take.cuts:
        notes.append("dotted: one clip ends, the next begins")
    top = 1 - 0.12 / tall
    name, _, rest = take.title.partition(" · ")
    figure.text(left, top, name, ha="left", va="top", fontsize=12, color=drawing.INK, weight="bold")
    figure.text(left, 1 - 0.34 / tall, rest, ha="left", va="top", fontsize=8.5, color=drawing.INK)
    if notes:
        figure.text(
            left,
            0.04 / tall,
            " · ".join(notes),
            ha="left",
            va="bottom",
            fontsize=8,
            color=drawing.FAINT,
        )


def _valid(take: Take, values: np.ndarray) -> np.ndarray:
    return np.where(take.frame_mask, values, np.nan)


def _shade(axis: Any, take: Take, start: float) -> None:
    edges = np.flatnonzero(np.diff(np.r_[False, ~take.frame_mask, False].astype(int)))
    for a, b in edges.reshape(-1, 2):
        axis.axvspan(
            start + a / rig.FPS,
            start + b / rig.FPS,
            color=_MASKED,
            alpha=0.35,
            linewidth=0,
            zorder=0,
        )
    for cut in take.cuts:
        if start < cut < start + take.seconds:
            axis.axvline(cut, color=drawing.FAINT, linewidth=0.8, linestyle=":")


def _sound(axis: Any, take: Take, times: np.ndarray) -> None:
    hop = HOP // 4 * drawing.column_step(4 * len(times))  # 5 ms per column, more for long takes
    count = len(take.audio) // hop
    columns = take.audio[: count * hop].reshape(count, hop)
    seconds = times[0] + np.arange(count) * hop / (HOP * rig.FPS)
    axis.fill_between(
        seconds, columns.min(1), columns.max(1), color=_SOUND, linewidth=0.4, step="post"
    )
    peak = max(float(np.abs(take.audio).max(initial=0.0)), 1e-3)
    axis.set_ylim(-1.1 * peak, 1.1 * peak)
    drawing.style(axis, "sound", legend=False)
    loud = axis.twinx()
    level = np.maximum(_loudness(take), _QUIET_DB)
    drawing.curve(loud, times[: len(level)], level, "loudness", _LOUD, width=0.9)
    loud.set_ylim(_QUIET_DB, 0)
    loud.set_yticks([-60, -40, -20, 0])
    loud.set_ylabel("dB", rotation=0, fontsize=8, color=_LOUD, labelpad=8)
    loud.tick_params(labelsize=7.5, colors=_LOUD, length=2)
    for side in loud.spines.values():
        side.set_visible(False)


def _loudness(take: Take) -> np.ndarray:
    """Returns the level of each frame [T] in dB relative to full scale, at least -100."""
    return 20 * np.log10(np.maximum(frame_levels(take.audio)[:, 0], 1e-5))


def _lips(axis: Any, take: Take, times: np.ndarray) -> None:
    """Draws the lip aperture over the loudness, to show whether audio and motion are in sync."""
    level = 10 ** (_loudness(take) / 20)
    loudest = max(float(np.percentile(level, 99.5)), 1e-4)
    channels = [i for i in np.flatnonzero(rig.APERTURE) if take.channel_mask[i]]
    gap = _valid(take, take.motion[:, channels] @ rig.APERTURE[channels])
    tallest = max(float(np.nanmax(np.where(take.frame_mask, gap, np.nan), initial=0.0)), 0.05)
    step = drawing.column_step(len(level))
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
        drawing.curve(axis, times, gap, "aperture", "#000000", width=1.2)
    lowest = min(0.0, float(np.nanmin(gap, initial=0.0)))
    axis.set_ylim(lowest - 0.05 * tallest, 1.12 * tallest)
    drawing.style(axis, "lips")


def _residual(axis: Any, take: Take, times: np.ndarray) -> None:
    assert take.residual is not None
    values = _valid(take, take.residual)
    known = values[np.isfinite(values)]
    drawing.curve(axis, times, values, "of the solve", "#444444")
    if len(known):
        axis.axhline(
            np.median(known), color=_COLOURS[0], linewidth=0.8, linestyle="--",
            label=f"median {np.median(known):.2f}",
        )  # fmt: skip
        axis.set_ylim(0, 1.15 * max(float(known.max()), 1e-3))
    drawing.style(axis, "residual\n(mm)")
