"""Builds the items of batches: windows of clips with identity, context and cached features."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import numpy as np

from a2fjax.batch import Batch
from a2fjax.configuration import AugmentConfig, Config
from a2fjax.data import augment, pauses, records, subjects, window_sampler, windows
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache.reader import Reader
from a2fjax.data.identity import parallel
from a2fjax.data.identity.points import mesh_points
from a2fjax.errors import InputError

CACHE_ERROR = -1
"""Key in the bad records for unreadable hidden states; no other clip replaces those."""

_NO_AUGMENT = AugmentConfig(enabled=False)


def encoder_names(config: Config) -> list[str]:
    """Returns the audio features that are speech encoders; their names contain a path."""
    return [name for name in config.audio.features if ":" in name]


def context_frames(config: Config) -> int:
    """Returns the number of context frames for live encoders; 0 without live encoders.

    The context fits the longest clip at the lowest speed of augmentation.
    """
    if config.data.encoder_features != "live" or not encoder_names(config):
        return 0
    # Subtract more than the rounding error: 1000 frames times 1.1 must give 1100.
    slowed = config.data.context_frames * augment.slowest(config.data.augment) - 1e-6
    return max(math.ceil(slowed), config.data.window_frames)


@dataclasses.dataclass(frozen=True)
class Identities:
    """Neutral meshes of S subjects, and the subjects of N clips.

    Attributes:
      points: [S, P, 3 or 6] float32.
      known: [S] bool, whether the subject has a mesh.
      trained: [S] int32, number among the training subjects, or `subjects.UNKNOWN`.
      subject: [N] int32, subject of each clip.
    """

    points: np.ndarray
    known: np.ndarray
    trained: np.ndarray
    subject: np.ndarray


def load_identities(source: ClipSource, config: Config) -> Identities:
    """Samples the identity points of all subjects of a clip source.

    Raises:
      InputError: a mesh is damaged.
    """
    count, normals = config.data.identity_points, config.model.identity_normals
    names = sorted({(e.folder, e.subject) for e in source.entries})
    points = np.zeros((len(names), count, 6 if normals else 3), np.float32)
    known = np.zeros(len(names), np.bool_)
    paths: dict[int, str] = {}
    for i, (folder, name) in enumerate(names):
        mesh = source.manifests[folder].subject(name).mesh
        if mesh is not None and config.model.identity == "mesh":
            paths[i] = os.path.join(source.folders[folder], mesh)
    parallel.prepare(list(paths.values()), count, normals=normals)
    for i, path in paths.items():
        points[i] = mesh_points(path, count, normals=normals)
        known[i] = True
    index = {name: i for i, name in enumerate(names)}
    subject = np.array([index[e.folder, e.subject] for e in source.entries], np.int32)
    data = config.data
    training = subjects.training(source.folders, source.manifests, data.split, data.weights)
    order = {p: k for k, p in enumerate(training)}
    trained = np.array([order.get(name, subjects.UNKNOWN) for name in names], np.int32)
    return Identities(points, known, trained, subject)


@dataclasses.dataclass(frozen=True)
class HostIndex:
    """Maps a host's window index to the global order; hosts get contiguous parts of a batch."""

    batch: int
    part: int
    host: int

    def __call__(self, index: int) -> int:
        """Returns the index in the global order."""
        step, row = divmod(int(index), self.part)
        return step * self.batch + self.host * self.part + row


@dataclasses.dataclass
class WindowBuilder:
    """Maps an index in the global order to a batch item and the reasons for bad records."""

    source: ClipSource
    identities: Identities
    config: Config
    plan: window_sampler.Plan | list[tuple[int, int]]
    train: bool
    cached: Reader | None = None
    rests: dict[int, np.ndarray | None] = dataclasses.field(default_factory=dict)

    def __call__(self, index: int) -> tuple[Batch, dict[int, str]]:
        """Returns an item without a batch axis, and the reason for each bad record by clip."""
        data = self.config.data
        setting = data.augment if self.train else _NO_AUGMENT
        context: dict[str, Any] = {}
        hidden_states: dict[str, np.ndarray] = {}
        wanted = self._clip(index)
        number, clip, bad = self.source.get(wanted)
        if isinstance(self.plan, window_sampler.Plan):
            random = window_sampler.generator(self.plan.seed, window_sampler.AUGMENT, index)
            speed = augment.draw_speed(setting, random)
            need = int(np.ceil((data.window_frames - 1) * speed)) + 1
            start = self.plan.start(index, clip.frames, need)
        else:
            random, speed = np.random.default_rng(0), 1.0
            middle = self.plan[index][1] + data.window_frames / 2
            start = window_sampler.start_at(middle, clip.frames, data.window_frames)
        # Live encoders get the whole augmented clip, and the window is a part of it.
        heard = context_frames(self.config)
        begin = 0 if heard else start
        window = windows.cut(clip, begin, heard or data.window_frames, speed)
        rest = self._rest(number, clip) if setting.enabled and setting.silence_prob else None
        window = augment.augment(window, setting, random, rest=rest)
        if heard:
            first = min(round(start / speed), max(window.length - data.window_frames, 0))
            context = {
                "context_audio": window.audio,
                "context_length": np.int32(window.length),
                "context_start": np.int32(first),
            }
            window = windows.part(window, first, data.window_frames)
        if self.cached is not None:
            entry = self.source.entries[number]
            for key, spec in self.cached.specs.items():
                try:
                    states = self.cached.window(
                        key, entry, start, data.window_frames, speed, clip=clip
                    )
                except InputError as error:
                    shape = (data.window_frames, spec.states, spec.width)
                    states, bad[CACHE_ERROR] = np.zeros(shape, np.float16), str(error)
                hidden_states[key] = states
        subject = self.identities.subject[number]
        points = self.identities.points[subject]
        item = Batch(
            audio=window.audio,
            motion=window.motion,
            channel_mask=window.channel_mask,
            frame_mask=window.frame_mask,
            length=np.int32(window.length),
            identity=augment.mirror_points(points) if window.mirrored else points,
            identity_mask=self.identities.known[subject],
            # A mirrored subject counts as another subject.
            subject=np.int32(
                subjects.UNKNOWN if window.mirrored else self.identities.trained[subject]
            ),
            emotion=window.emotion,
            clip=np.int32(number),
            start=np.int32(start),
            cached_features=hidden_states,
            **context,
        )
        return item, bad

    def _clip(self, index: int) -> int:
        if isinstance(self.plan, window_sampler.Plan):
            return self.plan.clip(index)
        return self.plan[index][0]

    def _rest(self, number: int, clip: records.Clip) -> np.ndarray | None:
        if number not in self.rests:
            self.rests[number] = pauses.rest_pose(clip)
        return self.rests[number]


def stack(items: list[tuple[Batch, dict[int, str]]]) -> tuple[Batch, dict[int, str]]:
    """Stacks items into one batch and merges their bad records."""
    bad: dict[int, str] = {}
    for _, each in items:
        bad.update(each)
    return Batch.stack([window for window, _ in items]), bad
