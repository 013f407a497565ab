"""NVIDIA's own client types, and WebSocket speakers, on one engine."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.cli import main
from a2fjax.cli import serve as serve_command
from a2fjax.errors import InputError
from a2fjax.live.serving import emotions as emotions_lib
from a2fjax.live.serving import server
from a2fjax.live.serving.engine import Full

ROWS = 3


@pytest.fixture(scope="module")
def make_engine(model):
    return serve_command._engine(model, ROWS, None)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def pcm(samples):
    """Returns (bytes, the samples that they hold)."""
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    return whole.tobytes(), whole.astype(np.float32) / 32768


def expected(model, samples):
    return model.predict((samples, 16_000)).curves


async def gather(speaker, samples, size):
    async def send():
        for begin in range(0, len(samples), size):
            await speaker.push(samples[begin : begin + size])
        speaker.end()

    sending = asyncio.ensure_future(send())
    out = []
    while (motion := await speaker.take()) is not None:
        out.append(motion)
    await sending
    speaker.close()
    return np.concatenate(out)


def test_rows_are_speakers_that_do_not_hear_each_other(make_engine, model, speech):
    clips = [speech(seconds, seed=i) for i, seconds in enumerate((0.5, 0.31, 0.4, 0.2, 0.3))]

    async def run():
        engine = make_engine()
        task = asyncio.ensure_future(engine.run())
        speakers = [engine.open(emotions_lib.Emotions(emotions_lib.weights({}))) for _ in range(3)]
        with pytest.raises(Full):
            engine.open(lambda frame: None)
        first = await asyncio.gather(
            *(gather(s, c, 700) for s, c in zip(speakers, clips, strict=False))
        )
        # Whoever comes later gets a row that somebody used, and hears nothing of them.
        later = []
        for clip in clips[3:]:
            speaker = engine.open(emotions_lib.Emotions(emotions_lib.weights({})))
            later.append(await gather(speaker, clip, 320))
        counts = engine.counts
        assert (counts.speakers, counts.admitted, counts.refused["full"]) == (0, 5, 1)
        assert counts.steps < sum(-(-len(c) // 320) + 5 for c in clips), "calls are shared"
        task.cancel()
        return [*first, *later]

    for clip, motion in zip(clips, asyncio.run(run()), strict=True):
        np.testing.assert_allclose(motion, expected(model, clip), atol=1e-6, rtol=1e-6)


@contextlib.asynccontextmanager
async def serving(make_engine, **options):
    ports = {kind: ("127.0.0.1", free_port()) for kind in ("websocket", "grpc")}
    ports = {k: v if options.pop(k, True) else None for k, v in ports.items()}
    stop, ready = asyncio.Event(), asyncio.Event()
    lines = []

    def started(line):
        lines.append(line)
        if len(lines) == sum(v is not None for v in ports.values()):
            ready.set()

    task = asyncio.ensure_future(
        server.serve(make_engine, **ports, stop=stop, started=started, drain_seconds=0.2, **options)
    )
    waiting = asyncio.ensure_future(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    try:
        yield {k: v and v[1] for k, v in ports.items()}
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


class Nvidia:
    """A client of NVIDIA's types."""

    def __init__(self, port):
        pytest.importorskip("nvidia_audio2face_3d", reason="the extra serve is not installed")
        import grpc
        from nvidia_ace import audio_pb2
        from nvidia_audio2face_3d import audio2face_pb2_grpc, messages_pb2

        self.m, self.audio = messages_pb2, audio_pb2
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = audio2face_pb2_grpc.A2FControllerServiceStub(self.channel)

    def header(self, rate=16_000, bits=16, **options):
        audio = self.audio.AudioHeader(
            audio_format=self.audio.AudioHeader.AUDIO_FORMAT_PCM,
            channel_count=1,
            samples_per_second=rate,
            bits_per_sample=bits,
        )
        header = self.m.AudioWithEmotionStreamHeader(audio_header=audio, **options)
        return self.m.AudioWithEmotionStream(audio_stream_header=header)

    def sound(self, data, emotions=()):
        found = [self.m.EmotionWithTimeCode(time_code=t, emotion=e) for t, e in emotions]
        message = self.m.AudioWithEmotion(audio_buffer=data, emotions=found)
        return self.m.AudioWithEmotionStream(audio_with_emotion=message)

    def end(self):
        return self.m.AudioWithEmotionStream(
            end_of_audio=self.m.AudioWithEmotionStream.EndOfAudio()
        )

    async def talk(self, *messages):
        """Returns (header, weights, time codes, audio, events, statuses)."""

        async def send():
            for message in messages:
                yield message

        header, weights, times, audio, events, statuses = None, [], [], b"", [], []
        async for answer in self.stub.ProcessAudioStream(send()):
            kind = answer.WhichOneof("stream_part")
            if kind == "animation_data_stream_header":
                header = answer.animation_data_stream_header
            elif kind == "animation_data":
                for each in answer.animation_data.skel_animation.blend_shape_weights:
                    weights.append(list(each.values))
                    times.append(each.time_code)
                assert answer.animation_data.audio.time_code == times[-1]
                audio += answer.animation_data.audio.audio_buffer
            elif kind == "event":
                events.append(answer.event.event_type)
            else:
                statuses.append(answer.status)
        return header, np.array(weights), times, audio, events, statuses

    async def close(self):
        await self.channel.close()


def need_serve():
    for name in ("nvidia_audio2face_3d", "nvidia_ace", "grpc", "websockets"):
        pytest.importorskip(name, reason="the extra serve is not installed")


def test_nvidias_client_gets_the_frames_of_infer(make_engine, model, speech):
    need_serve()
    data, samples = pcm(speech(0.61))

    async def run():
        async with serving(make_engine, websocket=False) as ports:
            client = Nvidia(ports["grpc"])
            chunks = [data[i : i + 1000] for i in range(0, len(data), 1000)]
            sounds = [client.sound(chunk) for chunk in chunks]
            plain = await client.talk(client.header(), *sounds, client.end())
            parameters = client.m.BlendShapeParameters(
                bs_weight_multipliers={"JawOpen": 2.0, "NoSuchShape": 1.0},
                bs_weight_offsets={"mouthClose": 0.25},
                enable_clamping_bs_weight=True,
            )
            face = client.m.FaceParameters(float_params={"lowerFaceStrength": 1.3})
            changed = await client.talk(
                client.header(blendshape_params=parameters, face_params=face),
                client.sound(data, [(0.3, {"joy": 1.0})]),
                client.end(),
            )
            wide = np.repeat(samples, 3)
            fast = await client.talk(client.header(rate=48_000), client.sound(pcm(wide)[0]))
            await client.close()
            return plain, changed, fast

    plain, changed, fast = asyncio.run(run())
    header, weights, times, audio, events, statuses = plain
    truth = expected(model, samples)[:, :68]
    names = list(header.skel_animation_header.blend_shapes)
    assert [n[0].lower() + n[1:] for n in names] == list(rig.CHANNELS[:68])
    assert header.audio_header.samples_per_second == 16_000
    assert header.start_time_code_since_epoch > 1e9
    np.testing.assert_allclose(weights, truth, atol=1e-6)
    np.testing.assert_allclose(times, np.arange(31) / 50)
    assert audio == data and events == [0]
    assert [(s.code, s.message) for s in statuses] == [(0, "done")]
    _, other, *_, statuses = changed
    jaw, close = names.index("JawOpen"), names.index("MouthClose")
    np.testing.assert_allclose(other[:15, jaw], np.clip(2 * truth[:15, jaw], 0, 1), atol=1e-5)
    np.testing.assert_allclose(other[:15, close], truth[:15, close] + 0.25, atol=1e-6)
    plainer = np.delete(np.arange(68), [jaw, close])
    assert np.abs(other[:15, plainer] - truth[:15, plainer]).max() < 1e-6
    assert np.abs(other[20:, plainer] - truth[20:, plainer]).max() > 1e-3, "joy from 0.3 s on"
    assert statuses[0].code == 2
    assert "bs_weight_multipliers.NoSuchShape" in statuses[0].message
    assert "face_params.lowerFaceStrength" in statuses[0].message
    assert len(fast[1]) == 31 and fast[3] == pcm(np.repeat(samples, 3))[0]


def test_clients_that_misbehave_hear_it_alone(make_engine, speech):
    need_serve()
    import grpc

    data, _ = pcm(speech(0.2))

    async def run():
        async with serving(make_engine, websocket=False) as ports:
            client = Nvidia(ports["grpc"])

            async def refused(code, text, *messages):
                with pytest.raises(grpc.aio.AioRpcError) as found:
                    await asyncio.wait_for(client.talk(*messages), 60)
                assert (found.value.code().name, text in found.value.details()) == (code, True)

            bad, start = "INVALID_ARGUMENT", client.header()
            await refused(bad, "audio_stream_header", client.sound(data))
            await refused(bad, "audio_stream_header")
            await refused(bad, "8 bits", client.header(bits=8))
            await refused(bad, "4000 to 384000", client.header(rate=10))
            await refused(bad, "3 bytes", start, client.sound(b"abc"))
            await refused(bad, "10000 time codes", start, client.sound(data, [(0, {})] * 10_000))
            await refused(
                bad, "did you mean 'happy'", start, client.sound(data, [(0, {"hapy": 1})])
            )
            await refused(bad, "audio_stream_header", start, start)
            await refused("RESOURCE_EXHAUSTED", "larger", start, client.sound(bytes(5 << 20)))
            # Speakers that say nothing hold their rows; one more is told at once.
            calls = [client.stub.ProcessAudioStream() for _ in range(ROWS)]
            for call in calls:
                await call.write(start)
                await call.read()
            await refused("RESOURCE_EXHAUSTED", "full", start, client.sound(data))
            calls[0].cancel()  # Killed: its row is free again.
            for _ in range(100):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    good = await client.talk(start, client.sound(data), client.end())
                    break
                await asyncio.sleep(0.02)
            assert len(good[1]) == 10
            for call in calls:
                call.cancel()
            await client.close()

    asyncio.run(run())


def test_websocket_speakers_health_and_metrics(make_engine, model, speech):
    need_serve()
    from websockets.asyncio.client import connect

    data, samples = pcm(speech(0.4))

    def fetch(port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as found:
                return found.status, found.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    async def speak(port, query="", messages=(data,), end=True):
        out = []
        async with connect(f"ws://127.0.0.1:{port}/speak{query}") as socket:
            for message in messages:
                await socket.send(message)
            if end:
                await socket.send('{"end": true}')
            async for message in socket:
                out.append(json.loads(message))
                if "end" in out[-1] or "error" in out[-1]:
                    break
        return out

    async def run():
        async with serving(make_engine, grpc=False) as ports:
            port = ports["websocket"]
            # A client that never reads costs the others nothing.
            async with connect(f"ws://127.0.0.1:{port}/speak", max_queue=1) as silent:
                await silent.send(data * 20)
                plain, other = await asyncio.gather(speak(port), speak(port))
            happy = await speak(port, "?emotion=happy")
            wrong = [
                await speak(port, messages=["this is text"]),
                await speak(port, messages=[b"abc"]),
                await speak(port, "?rate=1", end=False, messages=[]),
                await speak(port, "?format=mp3", end=False, messages=[]),
                await speak(port, messages=['{"emotion": {"hapy": 1}}']),
            ]
            loop = asyncio.get_running_loop()
            pages = {
                path: await loop.run_in_executor(None, fetch, port, path)
                for path in ("/health", "/ready", "/metrics", "/none")
            }
        return plain, other, happy, wrong, pages

    plain, other, happy, wrong, pages = asyncio.run(run())
    assert plain[0]["channels"] == list(rig.CHANNELS) and plain[-1] == {"end": True}
    found = np.array([message["weights"] for message in plain[1:-1]])
    np.testing.assert_allclose(found, expected(model, samples), atol=2e-6)
    assert plain[1:-1] == other[1:-1]
    assert np.abs(np.array([m["weights"] for m in happy[1:-1]]) - found).max() > 1e-3
    texts = [messages[-1].get("error", "") for messages in wrong]
    for text, part in zip(
        texts, ("JSON", "3 bytes", "4000 to 384000", "s16le", "'happy'"), strict=True
    ):
        assert part in text
    assert pages["/health"] == (200, "ok\n") and pages["/ready"] == (200, "ready\n")
    assert pages["/none"][0] == 404
    metrics = dict(
        line.rsplit(" ", 1) for line in pages["/metrics"][1].splitlines() if "#" not in line
    )
    assert float(metrics["a2fjax_frames_total"]) >= 60
    assert float(metrics['a2fjax_refused_total{reason="input"}']) == 5
    assert metrics["a2fjax_speakers_limit"] == "3"


def test_emotions_go_from_one_to_the_next():
    sad, happy = (emotions_lib.weights({name: 1.0}) for name in ("sadness", "happy"))
    track = emotions_lib.Emotions(sad, transition=0.2)
    track.add(1.0, happy)
    np.testing.assert_array_equal(track(49), sad)
    np.testing.assert_allclose(track(55), (sad + happy) / 2, atol=1e-6)
    np.testing.assert_allclose(track(60), happy, atol=1e-6)
    track.add(0.5, sad)  # A time before the last key replaces it.
    np.testing.assert_allclose(track(100), sad, atol=1e-6)
    with pytest.raises(InputError, match="1000 time codes"):
        for number in range(2000):
            track.add(1.0 + number, sad)
    for given in ({"joy": 2.0}, {"joy": float("nan")}, {"jot": 0.5}, {"jot": 0.0}):
        with pytest.raises(InputError, match="jo[yt]"):
            emotions_lib.weights(given)


def test_addresses_that_cannot_be_served_are_one_line(run, capsys, monkeypatch):
    def fails(*args):
        assert main.main(["serve", str(run), *args]) == 2
        return capsys.readouterr().err

    assert "nothing to serve" in fails()
    assert "A2F_LIVE_TOKEN" in fails("--ws", "0.0.0.0:8765")
    assert "PORT" in fails("--ws", "ws")
    assert "1 to 1024" in fails("--ws", "8765", "--speakers", "0")
    monkeypatch.setitem(sys.modules, "nvidia_ace", None)
    assert "extra serve" in fails("--grpc", "52000")


@pytest.mark.slow
def test_the_command_serves_until_sigterm_and_refuses_a_port_in_use(run, speech):
    need_serve()
    port, second = free_port(), free_port()
    command = [sys.executable, "-m", "a2fjax.cli.main", "serve", str(run), "--speakers", "2"]
    command += ["--ws", str(port), "--grpc", str(second)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            assert str(port) in lines[0] and f"127.0.0.1:{second}" in lines[1]
            for flag, used in (("--ws", port), ("--grpc", second)):
                again = subprocess.run(
                    [*command[:5], flag, str(used)], capture_output=True, text=True, timeout=300
                )
                assert again.returncode == 2, again.stderr
                assert "cannot be bound" in again.stderr and "Traceback" not in again.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
