"""Rates that are taken for one another, and the drift of the clocks that each mistake causes."""

from __future__ import annotations

import dataclasses

from data_pipeline.timing import align

LARGEST_DRIFT = 0.012
"""Searched continuously, s/s; beyond, only what mistaken rates give."""

FRAME_RATES = tuple(
    sorted({*(24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 100.0, 120.0), *align.NTSC_RATES})
)
SAMPLE_RATES = (44_100.0, 48_000.0)

_NEAREST, _FURTHEST = 1e-4, 3e-4  # s/s; 23.976 and 24 differ by 1e-3
_LARGE = 2e-3  # s/s; drift so large has no other explanation


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A rate taken for another.

    Attributes:
      drift: drift that it causes, s/s.
      text: both rates, as text.
      of_sound: whether the rate is the sound's: its words are then too slow or too fast.
    """

    drift: float
    text: str
    of_sound: bool = False


def find_mistake(drift: float, fps: float, spread: float = 0.0) -> Mistake | None:
    """Returns the mistaken rate that explains a drift, or None.

    Args:
      drift: s of audio gained per s of capture.
      fps: rate used to time the capture's frames.
      spread: standard error of the drift.
    """
    near = min(max(3.0 * spread, _NEAREST), _FURTHEST)
    if abs(drift) > LARGEST_DRIFT:
        near = _LARGE
    taken = min(FRAME_RATES, key=lambda rate: abs(rate / fps - 1.0))
    mistakes = []
    if abs(taken / fps - 1.0) < _FURTHEST:
        mistakes = [
            Mistake(taken / rate - 1.0, f"{rate:.6g} fps taken for {taken:.6g}")
            for rate in FRAME_RATES
            if rate != taken
        ]
    mistakes += [
        Mistake(real / assumed - 1.0, f"sound of {real:.0f} Hz taken for {assumed:.0f}", True)
        for real, assumed in (SAMPLE_RATES, SAMPLE_RATES[::-1])
    ]
    best = min(mistakes, key=lambda m: abs(m.drift - drift))
    return best if abs(best.drift - drift) <= near else None


def describe_drift(drift: float, mistake: Mistake | None) -> str:
    """Returns a drift and the mistake that explains it, as text."""
    size = f"{100 * drift:+.2f} %" if abs(drift) >= 0.001 else f"{1e6 * drift:+.0f} ppm"
    text = f"the clocks run apart by {size} ({abs(drift) * 6e4:.1f} ms a minute)"
    return text if mistake is None else f"{text}: looks like {mistake.text}"


def stretches(fps: float) -> list[float]:
    """Returns the stretch of the capture's clock for each mistake beyond `LARGEST_DRIFT`."""
    ratios = [fps / rate for rate in FRAME_RATES]
    ratios += [SAMPLE_RATES[0] / SAMPLE_RATES[1], SAMPLE_RATES[1] / SAMPLE_RATES[0]]
    return [r for r in ratios if abs(r - 1.0) > 0.9 * LARGEST_DRIFT and 0.4 < r < 2.6]
