"""Settings of the sync experts: networks that tell whether motion and speech are in step."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from a2fjax.configuration.bounds import Depth, NonNegative, Positive, Reach, Share, Width
from a2fjax.configuration.models import ModelConfig
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig(ModelConfig):
    """Settings that both experts have.

    Attributes:
      window_frames: frames of motion that are compared at once (50 a second): 15 is 0.3 s, 32 is
        0.64 s. A trained expert can also judge other windows.
      audio_reach: frames of audio heard before and after each frame of a window.
      motion_reach: frames of motion seen before and after a frame, inside the window only.
      width: channels of each convolution.
      layers: convolutions of each branch.
      dropout: share of channels dropped after each convolution, for a whole window of data.
      channel_dropout: largest share of rig channels hidden in a window of data; the share is drawn
        anew for each, so that captures with other channels work.
      tongue_dropout: share of windows of data without the tongue, which few captures have.
      own_statistics: share of windows of data whose channels are standardised by the window
        itself, as those of unknown people are; the others by their person.
      least_speech: least share of a window's frames with speech for it to count.
      least_motion: least root mean square of the difference between neighbouring frames, in
        standard deviations, for a window to count.
      warn_after: updates after which an expert that has not begun to learn is worth a warning.
    """

    kind: str = ""
    window_frames: Annotated[int, Depth] = 15
    audio_reach: Annotated[int, Reach] = 12
    motion_reach: Annotated[int, Depth] = 3
    width: Annotated[int, Width] = 96
    layers: Annotated[int, Depth] = 3
    dropout: Annotated[float, Share] = 0.1
    channel_dropout: Annotated[float, Share] = 0.5
    tongue_dropout: Annotated[float, Share] = 0.5
    own_statistics: Annotated[float, Share] = 0.5
    least_speech: Annotated[float, Share] = 0.5
    least_motion: Annotated[float, NonNegative] = 0.05
    warn_after: Annotated[int, Positive] = 1000

    def validate(self, where: str = "config") -> None:
        """Checks that a window is longer than what one of its frames sees.

        Raises:
          InputError: names both keys.
        """
        least = 2 * self.motion_reach + 1
        if self.window_frames < least:
            raise InputError(
                f"{where}: model.window_frames={self.window_frames}: a frame sees "
                f"{least} frames of motion (model.motion_reach={self.motion_reach}); expected at "
                f"least {least}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncnetConfig(SyncConfig):
    """The contrastive expert: audio and motion of one moment lie close together.

    Attributes:
      embedding: values of a frame's embedding; a window's is those of its frames together.
      windows: windows drawn from each window of data.
      shift_frames: largest shift of the negatives of the same clip.
      ignored_frames: shifts up to this many frames are neither right nor wrong.
      others: weight of telling a window's audio from that of other clips and people, beside
        telling it from shifted audio of its own clip.
    """

    kind: str = "syncnet"
    embedding: Annotated[int, Width] = 48
    windows: Annotated[int, Depth] = 8
    shift_frames: Annotated[int, Positive] = 25
    ignored_frames: Annotated[int, Reach] = 0
    others: Annotated[float, NonNegative] = 0.5

    def validate(self, where: str = "config") -> None:
        """Checks that negatives are left.

        Raises:
          InputError: names the keys.
        """
        super().validate(where)
        if self.ignored_frames >= self.shift_frames:
            raise InputError(
                f"{where}: model.ignored_frames={self.ignored_frames}: expected fewer than "
                f"model.shift_frames={self.shift_frames}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncnetInverseConfig(SyncConfig):
    """The inverse expert: the speech features that motion suggests, beside those heard.

    Attributes:
      loudness: weight of the loudness of a frame beside its spectrum in what is predicted.
    """

    kind: str = "syncnet_inverse"
    motion_reach: Annotated[int, Depth] = 5
    loudness: Annotated[float, NonNegative] = 0.3
