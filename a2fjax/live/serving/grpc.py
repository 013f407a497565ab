"""NVIDIA's A2FControllerService: its clients connect here instead of a GPU container.

One call is one utterance: a header, then audio with emotions by time code, then the end of audio.
Answered are a header with NVIDIA's 68 names (52 and the tongue; eye angles have none), weights
and audio by time code, an event at the end of the audio, and a status. What the header asks for and
this model does not have is named in a status of level WARNING. Messages are those of PyPI's
`nvidia-audio2face-3d` 1.3 and `nvidia-ace` 1.0.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from a2fjax import channel_orders, rig
from a2fjax.errors import InputError, one_line
from a2fjax.live.listeners import addresses
from a2fjax.live.resample import Resampler
from a2fjax.live.serving import emotions as emotions_lib
from a2fjax.live.serving.blendshapes import Blendshapes
from a2fjax.live.serving.engine import Engine, Full, Speaker
from a2fjax.live.sources import decode

LARGEST_MESSAGE = 4 << 20
"""Bytes; 43 s of audio at 48 kHz."""
MOST_SECONDS = 3600.0
"""Audio of one call."""
NAMES = channel_orders.order("nvidia68").names

_MESSAGE_SAMPLES = 320_000  # Of 16 kHz; a block of a stream is at most a minute.


def library() -> tuple[Any, Any, Any]:
    """Returns (grpc, NVIDIA's service module, NVIDIA's messages).

    Raises:
      InputError: the extra is not installed.
    """
    try:
        import grpc
        from nvidia_ace import animation_pb2, audio_pb2, status_pb2
        from nvidia_audio2face_3d import audio2face_pb2_grpc, messages_pb2
    except ImportError as error:
        raise InputError(
            f"--grpc needs the extra serve: pip install 'a2fjax[serve]' ({error})"
        ) from None
    messages = type("Messages", (), {})
    for module in (animation_pb2, audio_pb2, status_pb2, messages_pb2):
        for name, value in vars(module).items():
            setattr(messages, name, value)
    return grpc, audio2face_pb2_grpc, messages


class Service:
    """Answers ProcessAudioStream.

    Attributes:
      paced: whether frames leave no earlier than their time, rather than as fast as they are made.
    """

    def __init__(self, engine: Engine, *, token: str | None = None, paced: bool = False):
        """Serves the speakers of an engine.

        Raises:
          InputError: the extra is not installed.
        """
        self._grpc, _, self._messages = library()
        self._engine, self._token, self.paced = engine, token, paced
        self.draining = False

    async def ProcessAudioStream(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Animates an utterance."""
        code = self._grpc.StatusCode
        shown = dict(context.invocation_metadata() or ()).get("authorization")
        if not addresses.admits(self._token, shown):
            self._engine.counts.refused["token"] += 1
            await context.abort(code.UNAUTHENTICATED, "authorization: the token is missing")
        if self.draining:
            await context.abort(code.UNAVAILABLE, "the server is ending")
        try:
            call = _Call(self._messages, await self._header(requests))
            speaker = self._engine.open(call.emotions)
        except Full as error:
            await context.abort(code.RESOURCE_EXHAUSTED, str(error))
        except InputError as error:
            self._engine.counts.refused["input"] += 1
            await context.abort(code.INVALID_ARGUMENT, one_line(str(error)))
        reading = asyncio.ensure_future(call.read(requests, speaker))
        try:
            yield call.header()
            start = time.monotonic()
            while (motion := await speaker.take()) is not None:
                for row in motion:
                    if self.paced:
                        wait = start + call.number / rig.FPS - time.monotonic()
                        await asyncio.sleep(max(0.0, wait))
                    yield call.frame(row)
            await reading
            yield call.end()
            yield call.status()
        except InputError as error:
            self._engine.counts.refused["input"] += 1
            await context.abort(code.INVALID_ARGUMENT, one_line(str(error)))
        finally:
            reading.cancel()
            speaker.close()

    async def _header(self, requests: Any) -> Any:
        async for request in requests:
            if request.WhichOneof("stream_part") == "audio_stream_header":
                return request.audio_stream_header
            break
        raise InputError("the first message: expected an audio_stream_header")


class _Call:
    """One utterance: what the client asked for, and how far it is."""

    def __init__(self, messages: Any, header: Any):
        self._messages = messages
        audio = header.audio_header
        if audio.audio_format != messages.AudioHeader.AUDIO_FORMAT_PCM:
            raise InputError(f"audio_format {audio.audio_format}: expected AUDIO_FORMAT_PCM")
        if audio.channel_count != 1 or audio.bits_per_sample != 16:
            raise InputError(
                f"audio_header: {audio.channel_count} channels of {audio.bits_per_sample} bits, "
                "expected 1 of 16"
            )
        self._rate = int(audio.samples_per_second)
        self._resampler = Resampler(self._rate)
        self._audio_header = audio
        self._blendshapes = Blendshapes(NAMES, header.blendshape_params)
        emotion = header.emotion_params
        first = emotions_lib.weights(dict(emotion.beginning_emotion))
        given = emotion.HasField("live_transition_time")
        transition = {"transition": emotion.live_transition_time} if given else {}
        self.emotions = emotions_lib.Emotions(first, **transition)
        self._unknown = self._blendshapes.unknown + _ignored(header)
        self._sound = bytearray()
        self._dropped = self._samples = 0
        self.number = 0

    async def read(self, requests: Any, speaker: Speaker) -> None:
        """Hears the client's messages; a wrong one is raised after the frames before it."""
        try:
            async for request in requests:
                part = request.WhichOneof("stream_part")
                if part == "end_of_audio":
                    break
                if part != "audio_with_emotion":
                    raise InputError(f"message {part}: expected audio_with_emotion or end_of_audio")
                await self._hear(request.audio_with_emotion, speaker)
            rest = self._resampler.finish()
            if len(rest):
                await speaker.push(rest)
        finally:
            speaker.end()

    async def _hear(self, message: Any, speaker: Speaker) -> None:
        if len(message.emotions) > emotions_lib.MOST_KEYS:
            raise InputError(
                f"emotions: {len(message.emotions)} time codes in a message, expected at most "
                f"{emotions_lib.MOST_KEYS}"
            )
        for each in message.emotions:
            self.emotions.add(each.time_code, emotions_lib.weights(dict(each.emotion)))
        samples = decode(message.audio_buffer, "s16le")
        self._samples += len(samples)
        if self._samples > MOST_SECONDS * self._rate:
            raise InputError(f"audio: more than {MOST_SECONDS:g} s in a call; begin another")
        self._sound += message.audio_buffer
        heard = self._resampler.push(samples)
        for begin in range(0, len(heard), _MESSAGE_SAMPLES):
            await speaker.push(heard[begin : begin + _MESSAGE_SAMPLES])

    def header(self) -> Any:
        """Returns the first answer."""
        m = self._messages
        return m.A2F3DAnimationDataStream(
            animation_data_stream_header=m.A2F3DAnimationDataStreamHeader(
                audio_header=self._audio_header,
                skel_animation_header=m.SkelAnimationHeader(blend_shapes=NAMES),
                start_time_code_since_epoch=time.time(),
            )
        )

    def frame(self, motion: np.ndarray) -> Any:
        """Returns the answer of the next frame [72], with the audio that belongs to it."""
        m, seconds = self._messages, self.number / rig.FPS
        self.number += 1
        end = 2 * round(self.number * self._rate / rig.FPS)
        sound = bytes(self._sound[: end - self._dropped])
        del self._sound[: len(sound)]
        self._dropped += len(sound)
        values = self._blendshapes(motion[: len(NAMES)]).tolist()
        weights = m.FloatArrayWithTimeCode(time_code=seconds, values=values)
        return m.A2F3DAnimationDataStream(
            animation_data=m.AnimationData(
                skel_animation=m.SkelAnimation(blend_shape_weights=[weights]),
                audio=m.AudioWithTimeCode(time_code=seconds, audio_buffer=sound),
            )
        )

    def end(self) -> Any:
        """Returns the event after the last frame."""
        event = self._messages.Event(event_type=self._messages.END_OF_A2F_AUDIO_PROCESSING)
        return self._messages.A2F3DAnimationDataStream(event=event)

    def status(self) -> Any:
        """Returns the status: a warning that names what was not used, or success."""
        status = self._messages.Status
        found = status(code=status.SUCCESS, message="done")
        if self._unknown:
            text = one_line("not used: " + ", ".join(self._unknown))
            found = status(code=status.WARNING, message=text)
        return self._messages.A2F3DAnimationDataStream(status=found)


def _ignored(header: Any) -> list[str]:
    """Returns the parameters of a header that this model does not have."""
    face, post = header.face_params, header.emotion_post_processing_params
    names = [
        f"face_params.{name}"
        for values in (face.float_params, face.integer_params, face.float_array_params)
        for name in sorted(values)
    ]
    return names + [
        f"emotion_post_processing_params.{field.name}" for field, _ in post.ListFields()
    ]
