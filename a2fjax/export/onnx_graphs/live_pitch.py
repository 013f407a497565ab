"""Pitch of one frame of live audio in ONNX: `a2fjax.audio.pitch` where one path is asked for."""

from __future__ import annotations

import math

import numpy as np

from a2fjax.audio import pitch
from a2fjax.audio.frontend import F0_CENTRE_HZ, F0_SCALE, VOICING_SCALE
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

_JUMP = pitch.OCTAVE_JUMP_COST / math.log(2.0)
"""Cost of a jump for each unit of the natural logarithm."""


def path(g: GraphBuilder, analysed: str) -> tuple[str, str, str]:
    """Returns log-F0 and voicing relative to silence, and mean square, [B, 1, 1] each.

    Args:
      g: the graph.
      analysed: [B, PAST + 1 + FUTURE, ANALYSIS]; zeros are silence.
    """
    count = pitch.CANDIDATES
    parts = g.node("Split", analysed, g.ints(count, count, 1), outputs=3, axis=2)
    hz, height, energy = parts
    # Candidates of silence are zero in a stream's past.
    tone = g.mul(g.node("Log", g.at_least(hz, pitch.MIN_HZ)), g.constant(_JUMP))
    inside = (1, pitch.PAST, pitch.PAST + 1)
    chosen = _choose(g, tone, height)
    lowest = _JUMP * math.log(F0_CENTRE_HZ)
    log_f0 = g.sub(g.slice(tone, *inside), g.constant(lowest))
    log_f0 = g.mul(log_f0, g.constant(1.0 / (_JUMP * F0_SCALE)))
    heights = g.mul(g.slice(height, *inside), g.constant(1.0 / VOICING_SCALE))
    strongest = g.node("ReduceMax", heights, g.ints(2), keepdims=1)
    # Of an unvoiced frame: the F0 of silence, and the strongest candidate.
    log_f0 = g.pad(log_f0, (0, 0, 0), (0, 0, 1))
    voicing = g.concat(heights, strongest, axis=2)
    found = [g.node("GatherElements", x, chosen, axis=2) for x in (log_f0, voicing)]
    return found[0], found[1], g.slice(energy, *inside)


def _choose(g: GraphBuilder, tone: str, height: str) -> str:
    """Returns the state [B, 1, 1] int64 of the frame `PAST`; messages go to it from both ends.

    Args:
      g: the graph.
      tone: natural logarithm of Hz [B, N, K] in units of `_JUMP`.
      height: of the candidates.
    """
    frames, states = pitch.PAST + 1 + pitch.FUTURE, pitch.CANDIDATES + 1
    bonus = g.mul(tone, g.constant(pitch.OCTAVE_COST / pitch.OCTAVE_JUMP_COST))
    bonus = g.sub(bonus, g.constant(pitch.OCTAVE_COST * math.log2(pitch.MIN_HZ)))
    local = g.where(g.node("Greater", height, g.constant(0.0)), g.add(height, bonus),
                    g.constant(-1.0))  # fmt: skip
    local = g.pad(local, (0, 0, 0), (0, 0, 1), pitch.VOICING_THRESHOLD)
    later, earlier = g.slice(tone, 1, 1, None), g.slice(tone, 1, 0, -1)
    jump = g.node("Abs", g.sub(g.expand(later, 3), g.expand(earlier, 2)))
    change = np.zeros((states, states))
    change[-1, :-1] = change[:-1, -1] = pitch.VOICING_CHANGE_COST
    cost = g.add(g.pad(jump, (0, 0, 0, 0), (0, 0, 1, 1)), g.constant(change))

    locals_ = g.node("Split", local, outputs=frames, axis=1, num_outputs=frames)
    costs = g.node("Split", cost, outputs=frames - 1, axis=1, num_outputs=frames - 1)

    def message(belief: str, number: int, axis: int) -> str:
        """Returns the message of one frame to the next.

        `axis` is the sender's axis of the cost [B, 1, now, before].
        """
        least = g.sub(g.expand(belief, 5 - axis), costs[number])
        return str(g.node("ReduceMax", least, g.ints(axis), keepdims=0))

    before, after = locals_[0], locals_[-1]
    for i in range(pitch.PAST - 1):
        before = g.add(locals_[i + 1], message(before, i, 3))
    for i in range(frames - 2, pitch.PAST, -1):
        after = g.add(locals_[i], message(after, i, 2))
    both = g.add(message(before, pitch.PAST - 1, 3), message(after, pitch.PAST, 2))
    belief = g.add(locals_[pitch.PAST], both)
    return str(g.node("ArgMax", belief, axis=2, keepdims=1))
