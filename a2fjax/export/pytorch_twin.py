"""The regression model in PyTorch; reads and writes the weights of a bundle.

Needs torch, safetensors and NumPy; of a bundle: a2fjax.json, config.json and model.safetensors.

    model = load("bundle")
    motion = model(audio, samples, speech_level, identity, emotion)   # as onnx/model.onnx
    ...                                                               # train it
    save(model, "trained.safetensors")

    a2fjax export bundle --weights trained.safetensors --out new_bundle
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

gelu = nn.GELU(approximate="tanh")

GATES = ("r", "z", "n")
"""Reset, update, candidate: the order of PyTorch."""


class Film(nn.Module):
    """x * (1 + scale) + shift, both sums of linear maps of the conditions."""

    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        self.conditions = nn.ModuleList(nn.Linear(w, 2 * channels, bias=False) for w in widths)

    def forward(self, x: Tensor, conditions: list[Tensor]) -> Tensor:
        """Returns x [B, T, C] modulated by conditions [B, 1 or T, D]."""
        parts = [m(c) for m, c in zip(self.conditions, conditions, strict=True)]
        scale, shift = torch.stack(torch.broadcast_tensors(*parts)).sum(0).chunk(2, dim=-1)
        return x * (1 + scale) + shift


class IdentityMap(nn.Module):
    """Standardised components of a face [B, 16] to its embedding."""

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(components, width)
        self.out = nn.Linear(width, width)

    def forward(self, components: Tensor) -> Tensor:
        """Returns the embedding [B, E]."""
        return self.out(gelu(self.hidden(components)))


class Model(nn.Module):
    """Waveform and conditions to curves."""

    def __init__(self, manifest: dict, config: dict, constants: dict[str, Tensor]) -> None:
        super().__init__()
        model = config["model"]
        self.level, self.mel = manifest["level"], manifest["features"]["mel"]
        self.hop = manifest["rates"]["hop"]
        self.past, self.future = model["past_frames"], model["future_frames"]
        self.constants = constants
        layers, width, hidden = model["conv_layers"], model["conv_width"], model["recurrent_width"]
        channels = len(manifest["channels"])
        conditions = [model["emotion_width"]]
        if "identity" in manifest["conditions"]:
            conditions.insert(0, model["identity_width"])
        self.identity_map = None
        if model["identity"] == "mesh":
            components = constants["identity_projection"].shape[1]
            self.identity_map = IdentityMap(components, model["identity_width"])
        self.residual = None
        if model["identity_residual"]:
            rows = max(len(constants["subjects"]), 1)
            self.residual = nn.Embedding(rows, model["identity_width"])
        self.emotion = nn.Linear(len(manifest["emotions"]), model["emotion_width"])
        taps = [
            share(self.past, layers, i) + 1 + share(self.future, layers, i) for i in range(layers)
        ]
        depths = [self.mel["width"], *[width] * (layers - 1)]
        self.convs = nn.ModuleList(
            nn.Conv1d(d, width, k) for d, k in zip(depths, taps, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(layers))
        self.film = Film(conditions, width)
        both = model["recurrent"] == "bidirectional"
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=both)
        self.head = nn.Linear(hidden * (1 + both), channels)
        self.head_film = Film(conditions, channels)
        limits = [[c["low"], c["high"]] for c in manifest["channels"]]
        self.register_buffer("limits", torch.tensor(limits).T, persistent=False)
        bank = torch.from_numpy(filterbank(self.mel["fft"], self.mel["width"]))
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("floor", torch.tensor(self.mel["floor_power"]), persistent=False)

    def forward(
        self,
        audio: Tensor,
        samples: Tensor,
        speech_level: Tensor,
        identity: Tensor | None,
        emotion: Tensor,
    ) -> Tensor:
        """Returns the motion [B, T, 72], clipped unless training.

        Args:
          audio: [B, 320 T] as recorded.
          samples: [B] int, number of samples that count.
          speech_level: [B], RMS of the speech; 0 measures it.
          identity: [B, E], zeros for the mean; None for a model without identities.
          emotion: [B, T, 5].
        """
        inside = torch.arange(audio.shape[1], device=audio.device) < samples[:, None]
        audio = torch.where(inside, audio, 0.0)
        measured = [self.measure(row[:n]) for row, n in zip(audio, samples.tolist(), strict=True)]
        level = torch.where(speech_level > 0, speech_level, audio.new_tensor(measured))
        audio = audio * (self.level["target_rms"] / level)[:, None]

        conditions = []
        if identity is not None:
            conditions.append((self.mean_identity() + identity)[:, None])
        if "emotion_share" in self.constants:  # Emotions that the training lacks: the mean.
            shares = self.constants["emotion_share"].to(emotion)
            lost = emotion[..., shares <= 0].sum(-1, keepdim=True)
            emotion = torch.where(shares <= 0, 0.0, emotion) + lost * shares
        conditions.append(gelu(self.emotion(emotion)))

        length = (samples + self.hop - 1) // self.hop
        silence = self.log_mel(audio.new_zeros(1, self.hop))[0, 0]
        x = self.log_mel(audio)
        valid = torch.arange(x.shape[1], device=x.device) < length[:, None]
        x = torch.where(valid[..., None], x, silence) - silence
        x = functional.pad(x, (0, 0, self.past, self.future)) + silence
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = gelu(norm(conv(x.transpose(1, 2)).transpose(1, 2)))
        x = self.film(x, conditions)
        # Packed, so that the backward direction starts at each recording's own end.
        packed = nn.utils.rnn.pack_padded_sequence(
            x, length.cpu(), batch_first=True, enforce_sorted=False
        )
        x, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        x = self.head_film(self.head(x), conditions)
        motion = self.constants["motion_mean"].to(x) + self.constants["motion_std"].to(x) * x
        return motion if self.training else motion.clamp(self.limits[0], self.limits[1])

    def mean_identity(self) -> Tensor | float:
        """Returns the embedding that `identity` is an offset from."""
        if self.identity_map is None:
            return 0.0
        weight = self.identity_map.hidden.weight
        return self.identity_map(weight.new_zeros(1, weight.shape[1]))

    def log_mel(self, audio: Tensor) -> Tensor:
        """Returns the scaled log-mel [B, T, bins] of normalised audio [B, 320 T]."""
        size = self.mel["window_samples"]
        window = torch.hann_window(size, periodic=True, dtype=torch.float64).to(audio)
        framed = functional.pad(audio, (self.hop, 0)).unfold(1, size, self.hop) * window
        spectrum = torch.fft.rfft(framed, n=self.mel["fft"])
        log = torch.log((spectrum.real**2 + spectrum.imag**2) @ self.bank + self.floor)
        scaled = (log - torch.log(self.floor)) / self.mel["range"] * 2 - 1
        return scaled * self.mel["span"]

    def measure(self, audio: Tensor) -> float:
        """Returns the RMS of the speech in a recording [S]."""
        rule = self.level
        size = min(self.hop, len(audio))
        rows = audio[: len(audio) // size * size].reshape(-1, size).double().cpu().numpy()
        loud = rows.std(axis=1)
        steps = np.diff(rows, axis=1)
        brisk = np.sqrt((steps**2).mean(axis=1)) if size > 1 else np.zeros(len(rows))
        audible = loud > rule["inaudible_rms"]
        if not audible.any():
            return rule["target_rms"]
        loud, brisk = loud[audible], brisk[audible]
        quietest = np.percentile(brisk, rule["noise_percentile"])
        speech = loud[brisk > rule["contrast"] * quietest]
        part = min(1.0, len(speech) / rule["enough_frames"])
        percentile = rule["speech_percentile"]
        quiet = max(np.percentile(loud, percentile), rule["target_rms"])
        talk = max(np.percentile(speech, percentile), rule["floor_rms"]) if len(speech) else quiet
        return float(talk**part * quiet ** (1 - part))


def share(frames: int, layers: int, layer: int) -> int:
    """Returns a layer's part of a reach in frames; earlier layers get the remainder."""
    return frames // layers + (layer < frames % layers)


def filterbank(fft: int, bins: int) -> np.ndarray:
    """Returns Slaney's triangles of equal area [fft // 2 + 1, bins] from 0 to 8 kHz."""
    step = np.log(6.4) / 27
    mels = np.linspace(0.0, 15.0 + np.log(8.0) / step, bins + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * step))
    hz = np.fft.rfftfreq(fft, 1 / 16_000)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (edges[2:] - edges[:-2])).astype(np.float32)


def load(bundle: str | Path) -> Model:
    """Returns the model of a bundle, ready for inference."""
    return build(bundle, json.loads(Path(bundle, "a2fjax.json").read_text()))


def build(folder: str | Path, manifest: dict) -> Model:
    """Returns the model of a folder's config.json and model.safetensors."""
    config = json.loads(Path(folder, "config.json").read_text())["config"]
    tensors = load_file(Path(folder, "model.safetensors"))
    constants = {k.split(".")[1]: v for k, v in tensors.items() if k.startswith("constants.")}
    model = Model(manifest, config, constants)
    model.load_state_dict(to_torch(model, tensors))
    return model.eval()


def save(model: Model, path: str | Path) -> None:
    """Writes the weights as the bundle has them; `a2fjax export --weights` reads the file."""
    save_file({k: v.contiguous() for k, v in to_flax(model).items()}, path)


RENAMED = {
    "emotion": "backbone.emotion.hidden",
    "film.conditions.": "backbone.film.condition_",
    "head_film.conditions.": "head_film.condition_",
    "identity_map": "backbone.identity",
    "convs.": "backbone.conv_",
    "norms.": "backbone.norm_",
    "residual": "backbone.identity_residual",
    "head": "head",
}
"""Beginnings of names: here and in a bundle; the GRU's gates are stacked here, apart there."""


def bundled_name(name: str) -> str:
    """Returns what a bundle calls a weight."""
    module, _, leaf = name.rpartition(".")
    start = max((s for s in RENAMED if module.startswith(s)), key=len)
    kind = "scale" if start == "norms." else "table" if start == "residual" else "kernel"
    place = RENAMED[start] + module[len(start) :]
    return f"params.{place}.{'bias' if leaf == 'bias' else kind}"


def turned(name: str, value: Tensor) -> Tensor:
    """Returns a weight with its axes as the other side has them; its own inverse."""
    keeps = name.endswith(("bias", "scale", "table"))
    return value if keeps else value.permute(*range(value.ndim - 1, -1, -1))


def to_torch(model: Model, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state of a model from the tensors of a bundle."""
    out = {}
    for name in model.state_dict():
        if not name.startswith("gru."):
            theirs = bundled_name(name)
            out[name] = turned(theirs, tensors[theirs])
    for place, suffix in directions(model):

        def stack(kind: str, leaf: str, place: str = place) -> Tensor:
            return torch.cat([turned(leaf, tensors[f"{place}.{kind}{g}.{leaf}"]) for g in GATES])

        out[f"gru.weight_ih_l0{suffix}"] = stack("i", "kernel")
        out[f"gru.weight_hh_l0{suffix}"] = stack("h", "kernel")
        out[f"gru.bias_ih_l0{suffix}"] = stack("i", "bias")
        last = tensors[f"{place}.hn.bias"]
        out[f"gru.bias_hh_l0{suffix}"] = torch.cat([torch.zeros(2 * len(last)), last])
    return out


def to_flax(model: Model) -> dict[str, Tensor]:
    """Returns the tensors of a bundle from a model, its constants included."""
    out = {f"constants.{name}": value for name, value in model.constants.items()}
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if not name.startswith("gru."):
            theirs = bundled_name(name)
            out[theirs] = turned(theirs, value)
    for place, suffix in directions(model):
        parts = {
            kind: state[f"gru.{kind}_l0{suffix}"].chunk(3)
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        for i, gate in enumerate(GATES):
            out[f"{place}.i{gate}.kernel"] = parts["weight_ih"][i].T
            out[f"{place}.h{gate}.kernel"] = parts["weight_hh"][i].T
            bias, recurrent = parts["bias_ih"][i], parts["bias_hh"][i]
            # PyTorch has two biases where r and z need one; that of n stands inside the reset.
            out[f"{place}.i{gate}.bias"] = bias if gate == "n" else bias + recurrent
        out[f"{place}.hn.bias"] = parts["bias_hh"][2]
    return out


def directions(model: Model) -> list[tuple[str, str]]:
    """Returns (place in a bundle, suffix here) of each direction of the GRU."""
    if not model.gru.bidirectional:
        return [("params.backbone.gru", "")]
    return [("params.backbone.gru.forward", ""), ("params.backbone.gru.backward", "_reverse")]
