"""What an experiment may say: frozen dataclasses with their defaults and what each value means."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """How the speech encoders among the features are used; all of them alike.

    Attributes:
      layers: run only the first so many transformer layers; -1 for all.
      mix: a learned mix of all states, from what enters the first layer on, instead of the last.
      width: what each part of the features is projected to, signals included, once there is an
        encoder among them.
      train_from: first transformer layer that is trained with the model, counted from 0; -1 also
        trains what feeds the layers; None keeps the encoder frozen, which costs neither gradients
        nor optimiser memory.
      learning_rate: of the encoder's trained layers, as a factor of the model's.
      precision: of the encoder's activations, "float32" or "bfloat16".
      remat: computes the inside of layers again for gradients instead of keeping it.
      noise: standard deviation of the noise that training adds to the standardised states.
      dropout: share of an encoder's channels dropped for a whole window while training.
      time_mask: share of frames that SpecAugment's spans of `time_mask_frames` would cover if none
        overlapped; of every part of the features, each by itself.
      time_mask_frames: frames a span.
      part_dropout: share of training windows from which one part of the features is left out;
        never the only one.
    """

    layers: int = -1
    mix: bool = False
    width: int = 128
    train_from: int | None = None
    learning_rate: float = 0.1
    precision: str = "float32"
    remat: bool = False
    noise: float = 0.0
    dropout: float = 0.0
    time_mask: float = 0.0
    time_mask_frames: int = 10
    part_dropout: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Which features the model hears.

    Attributes:
      features: of "mel" (80 log-mel bins), "pitch" (F0, voicing, log energy) and pretrained
        encoders, "wav2vec2:PATH", "hubert:PATH", "whisper:PATH". Signals are concatenated; with an
        encoder among them every part is projected first.
      mel_floor_db: log-mel is floored this far below the clip's speech level; recorded rooms are
        never silent, and what lies below the floor must look like silence. Negative, dB.
      encoder: how encoders are used; see `EncoderConfig`.
    """

    features: tuple[str, ...] = ("mel",)
    mel_floor_db: float = -60.0
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of a training window; each is a function of (seed, step, place in batch).

    Attributes:
      enabled: all of it.
      gain_db: gain drawn from +- this many dB.
      eq_db: smooth random filter, standard deviation in dB.
      noise_prob: share of windows that get noise.
      noise_snr_db: (low, high) signal-to-noise ratio against the clip's speech level.
      speed: audio and motion together are played up to 1 + this many times faster or slower.
      silence_prob: share of windows in which a stretch is replaced by a pause, the mouth at rest;
        only of clips that show a rest pose in silence. With live encoders, of the clips that they
        hear: the pause may lie beside the window.
      mirror_prob: share of windows whose motion and identity are mirrored left to right.
    """

    enabled: bool = True
    gain_db: float = 6.0
    eq_db: float = 4.0
    noise_prob: float = 0.7
    noise_snr_db: tuple[float, float] = (10.0, 50.0)
    speed: float = 0.1
    silence_prob: float = 0.0
    mirror_prob: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and how it becomes batches.

    Attributes:
      shards: folders with a manifest, each read in full.
      weights: one for each folder, at least 0: the share of training windows drawn from folder i is
        weights[i] / sum(weights) whatever the sets' sizes, and the statistics that a model takes
        from its data and the held-out loss are of the same mixture. 0 leaves a folder out of
        training and of its held-out loss, as if it were not listed. () goes by amount of speech.
      split: of the manifest to train on.
      batch_size: global number of windows a step, over all hosts and devices.
      window_frames: frames a window (50 a second).
      identity_points: points sampled on the neutral mesh.
      encoder_features: what frozen encoders make of a clip: "live" computes it from the audio in
        every step, "cached" reads what `a2fjax cache` wrote beside the shards. The same
        numbers up to 16-bit rounding; what augmentation does to the sound is then heard by the
        signals only.
      context_frames: longest clip that live encoders hear, in frames before augmentation, which may
        slow it down: records are at most 1000.
      workers: grain worker processes; 0 reads in threads of this process.
      threads: read threads a process.
      prefetch: batches read ahead.
      on_bad_record: "skip" (named, counted, replaced) or "raise".
      augment: see `AugmentConfig`.
    """

    shards: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    split: str = "train"
    batch_size: int = 16
    window_frames: int = 128
    identity_points: int = 384
    encoder_features: str = "live"
    context_frames: int = 1000
    workers: int = 0
    threads: int = 2
    prefetch: int = 4
    on_bad_record: str = "skip"
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NvidiaConfig:
    """Of NVIDIA's two networks (`a2fjax.models.nvidia`); the defaults are the released sizes.

    The terms of `loss` keep their meaning with both heads: position is their "mse" (diffusion:
    "simple"), velocity their "motion", of the numbers that the head gives. Weights of terms that
    only they have are here; 0 leaves a term out.

    Attributes:
      head: "rig" gives the 72 channels, "geometry" what theirs gives: skin, tongue, jaw and eyes,
        from which the channels are solved again. The other heads' keys are not read then.
      rig: of the geometry head, an .npz file of shapes; see `models.nvidia.shapes`.
      tongue_rig: the tongue's shapes where they are in a file of their own.
      skin, tongue: PCA coefficients of conv_w2v_autocorr's geometry head; those beyond what the
        training frames span stay 0. diffusion_rnn gives vertices, as many as the rig has.
      solve_error: error to expect of a geometry's numbers, as a share of their RMS deviation over
        the training frames, above 0: the larger, the more the channels solved from them keep to
        what training motion looks like.
      actors: of diffusion_rnn's one-hot identity: 1 for everybody, 0 for one each training subject,
        or the number of these.
      implicit: conv_w2v_autocorr learns an emotion vector a training frame; inference hears their
        mean.
      standardise: encoders' states are brought to mean 0 and deviation 1 of the training data, as
        Whisper's need it; NVIDIA's are heard as they are.
      whole_encoder: diffusion_rnn trains, with audio.encoder.train_from at 0 or more, also what
        NVIDIA does of HuBERT: positional convolution and first norm. The gradient then runs through
        the frozen layers.
      width: of most layers.
      lag_widths: channels of conv_w2v_autocorr's four convolutions along the lags.
      recurrent_width, recurrent_layers, recurrent_dropout: of diffusion_rnn's GRU.
      steps: of the diffusion.
      sampler: "ddpm" (theirs) or "ddim", which draws no noise on the way.
      sample_steps: calls of the network for a sample; 2 is what they deploy.
      sample_seed: of the noise that every sample starts from.
      part_weights: factor of the error by part (skin, tongue, jaw, eyes) in diffusion_rnn's
        "simple"; 1 where it is missing.
      normalise: divides their normalised terms (position, velocity, emo_reg) by their own size to a
        power that falls from 1 to 0 over the run.
      vol_stab: of movement in silence.
      lip_dist: of the distance of the lips' vertices; of the geometry head.
      emo_reg: of change between neighbouring implicit vectors.
      exp_smooth: of the upper face's frame difference in diffusion_rnn; theirs is 25.
    """

    head: str = "rig"
    rig: str = ""
    tongue_rig: str = ""
    skin: int = 140
    tongue: int = 10
    solve_error: float = 0.1
    actors: int = 1
    implicit: bool = False
    standardise: bool = False
    whole_encoder: bool = False
    width: int = 256
    lag_widths: tuple[int, int, int, int] = (72, 108, 162, 243)
    recurrent_width: int = 256
    recurrent_layers: int = 2
    recurrent_dropout: float = 0.3
    steps: int = 1000
    sampler: str = "ddpm"
    sample_steps: int = 2
    sample_seed: int = 0
    part_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"tongue": 0.1})
    normalise: bool = False
    vol_stab: float = 0.0
    lip_dist: float = 0.0
    emo_reg: float = 1.0
    exp_smooth: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a diffusion model samples; may be other than in training, as long as the model knows it.

    Attributes:
      sampler: "angle" (second order at any number of steps), "dpm" (DPM-Solver++ 2M), "ddim",
        "ddpm" (ancestral), or "consistency", of distilled models only.
      steps: calls of the network, 1 or more.
      eta: of "ddim", share of fresh noise, 0 to 1.
      seed: of the noise that samples start from; another one is another take.
      audio, emotion, identity: strength of guidance, 1 for none. Each other than 1 makes every step
        dearer by one prediction, and asks for a model that was trained without the condition at
        times (`model.diffusion.audio_dropout`, `model.emotion_dropout`, `model.condition_dropout`).
    """

    sampler: str = "angle"
    steps: int = 8
    eta: float = 0.0
    seed: int = 0
    audio: float = 1.0
    emotion: float = 1.0
    identity: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Of the diffusion U-Net (`a2fjax.models.unet`); what it hears is as the regression's.

    Attributes:
      widths: channels by level; each level has half the rate of the one before.
      blocks: residual blocks of a level on the way down; on the way up there is one.
      heads: of attention; divides the widths.
      window: frames, of a level's own rate, that attention reaches either way at most.
      reach: frames at 50 a second within which attention to the audio costs nothing; beyond, each
        frame costs a learned amount.
      dropout: share of channels dropped inside residual blocks, for a whole window.
      remat: computes the inside of blocks again for gradients instead of keeping it.
      schedule: "cosine" or "linear", both to zero terminal signal.
      target: "v", "x0" or "eps", which starts from a little signal, as it must.
      snr_limit: weights squared errors of the clean motion by min(1 + SNR, this).
      pure_noise: share of training windows at pure noise, where every sample begins; the others are
        at even levels.
      coarse: weight of the loss of the coarse prediction, a regression that the U-Net corrects;
        its errors are in rig units, whatever `loss.balance`.
      audio_dropout: share of training windows without audio.
      distill_steps: 0 trains on data. Otherwise `init_from` is the teacher, and the student learns
        in one call what its teacher's sampler makes in so many: where the path from any noise level
        ends.
      distill_levels: noise levels that the student learns to start from, 1 and evenly below.
      sample: see `SampleConfig`.
    """

    widths: tuple[int, ...] = (96, 128, 192)
    blocks: int = 1
    heads: int = 4
    window: int = 32
    reach: int = 5
    dropout: float = 0.0
    remat: bool = False
    schedule: str = "cosine"
    target: str = "v"
    snr_limit: float = 5.0
    pure_noise: float = 0.1
    coarse: float = 1.0
    audio_dropout: float = 0.1
    distill_steps: int = 0
    distill_levels: int = 4
    sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network.

    Attributes:
      kind: "regression" (v2.3: convolutions, GRU, linear); "diffusion" (v3.0: the same hearing, and
        a U-Net that takes noise away, see `diffusion`); or one of NVIDIA's networks, which read
        nothing here but `nvidia`: "conv_w2v_autocorr" or "diffusion_rnn".
      conv_layers: number of 1-D convolutions.
      conv_width: channels of each.
      past_frames, future_frames: reach of the convolution stack in frames, shared over its layers.
      recurrent: "bidirectional" (a frame depends on the whole clip), or "causal" (one direction;
        a frame then hears `future_frames` and the features' own look-ahead beyond its instant,
        which `models.Model.lookahead_seconds` states).
      recurrent_width: units of each direction.
      identity: "mesh" or "none".
      identity_width: size of the identity embedding.
      emotion_width: size of the emotion embedding.
      dropout: share of channels dropped after each convolution, for a whole window; below 1.
      condition_dropout: share of training windows whose identity is replaced by the mean one.
      identity_normals: the description of the mesh holds its normals too; meshes then need faces
        of one winding.
      identity_residual: what the mesh does not tell of a person of the training set is learnt as a
        vector added to the embedding; nobody else has one. Works without meshes as well.
      residual_dropout: share of training windows without it, so that the mesh is not left unread.
      emotion_dropout: share of training windows whose emotion becomes the zero vector, "not told";
        a model trained without any has never seen it.
      diffusion: of the U-Net; see `DiffusionConfig`.
      nvidia: of NVIDIA's networks; see `NvidiaConfig`.
    """

    kind: str = "regression"
    conv_layers: int = 3
    conv_width: int = 256
    past_frames: int = 5
    future_frames: int = 5
    recurrent: str = "bidirectional"
    recurrent_width: int = 256
    identity: str = "mesh"
    identity_width: int = 32
    emotion_width: int = 16
    dropout: float = 0.1
    condition_dropout: float = 0.0
    identity_normals: bool = False
    identity_residual: bool = False
    residual_dropout: float = 0.5
    emotion_dropout: float = 0.0
    diffusion: DiffusionConfig = dataclasses.field(default_factory=DiffusionConfig)
    nvidia: NvidiaConfig = dataclasses.field(default_factory=NvidiaConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms; a term of weight 0 is not computed.

    Attributes:
      position: masked mean squared error of the channels (angles / 30 degrees).
      velocity: lambda_vel, of the frame difference.
      aperture: of the lip aperture.
      closure: of the aperture where the truth is nearly closed (exp(-gap / closure_width)).
      closure_width: in weight units, above 0.
      balance: how far channels that move little count as much as those that move much, from 0 (an
        error is an error) to 1 (errors in units of each channel's deviation): lips roll by a sixth
        of what the jaw opens, and a squared error of that hardly counts.
      group_weights: factor of position and velocity by channel group of `rig.GROUPS`, multiplied
        where groups overlap.
    """

    position: float = 1.0
    velocity: float = 1.0
    aperture: float = 1.0
    closure: float = 1.0
    closure_width: float = 0.05
    balance: float = 0.0
    group_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay.

    Attributes:
      learning_rate: peak.
      final_fraction: of the peak that is left at the last step.
      warmup_steps: linear from zero.
      weight_decay: decoupled; of matrices only, not of biases and scales.
      b1, b2, eps: of Adam.
      clip_norm: of the global gradient norm; 0 for none.
      ema_decay: of the averaged parameters that evaluation and export use; 0 for none.
    """

    learning_rate: float = 2e-3
    final_fraction: float = 0.01
    warmup_steps: int = 100
    weight_decay: float = 1e-2
    b1: float = 0.9
    b2: float = 0.99
    eps: float = 1e-8
    clip_norm: float = 1.0
    ema_decay: float = 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingConfig:
    """Device mesh: how many devices hold one copy of the state together, and who holds what.

    Attributes:
      data: copies of the state; -1 takes what is left.
      fsdp: devices that share a copy, each holding a part of the large arrays; -1 takes what is
        left.
      preset: "" takes the two numbers above. "replicate" is a copy a device, "host" one shared by
        the devices of a host, whose links are fast, "all" one shared by all, and "auto" the first
        of these that leaves most of each device's memory to activations (`train.mesh.choose`).
      rules: what becomes of arrays by path (as the parameter table writes them), instead of
        cutting the longest axis: regular expression -> "replicate", or the number of the axis to
        cut. The first expression that is found in a path counts.
      min_mib: arrays smaller than this stay whole on each device: gathering them costs more than
        it saves.
    """

    data: int = -1
    fsdp: int = 1
    preset: str = ""
    rules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    min_mib: float = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When states are saved and which are kept.

    Attributes:
      every_steps: save after this many steps, and after the last one.
      every_minutes: and whenever this long has passed since the last save; 0 for never.
      keep_latest: newest states kept.
      keep_best: best states kept, by `best_metric`.
      best_metric: logged evaluation value, lower is better.
    """

    every_steps: int = 200
    every_minutes: float = 0.0
    keep_latest: int = 2
    keep_best: int = 1
    best_metric: str = "eval/loss"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Loss and quick metrics on held-out windows while training.

    Attributes:
      split: of the manifest.
      every_steps: 0 for never; also after the last step.
      batches: number of batches.
    """

    split: str = "val"
    every_steps: int = 200
    batches: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written while training.

    Attributes:
      every_steps: between lines in metrics.jsonl and on the console.
      wandb: mirror metrics to Weights & Biases (offline without an account).
      wandb_project: name of the project there.
      profile_step: update from which on a few are traced into RUN/profile, which TensorBoard and
        Perfetto open; 0 for none.
      profile_steps: how many.
      hang_minutes: without a finished update, evaluation batch or save for this long, every process
        prints where its threads stand and ends with exit code 70; 0 for never. Compiling may take
        ten times as long.
    """

    every_steps: int = 20
    wandb: bool = False
    wandb_project: str = "a2fjax"
    profile_step: int = 0
    profile_steps: int = 3
    hang_minutes: float = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment, resolved.

    Attributes:
      name: of the experiment.
      seed: of parameters, data order, augmentation and dropout.
      steps: optimiser updates.
      precision: "float32", or "bfloat16" for activations (parameters and losses stay float32).
      accumulate: parts that a batch is computed in, one after the other, for its gradient; the
        batch must divide. Sums are those of the whole batch, whatever is masked where; only the
        draws of dropout and noise differ from those of another number of parts.
      remat: what is kept of the forward pass for the backward one: "none" throws nothing away,
        "dots" keeps the results of matrix products and convolutions and computes the rest again.
      init_from: run folder whose averaged weights training starts from, with its constants and its
        encoders, such as one trained on a larger set; "" starts at random.
    """

    name: str = "experiment"
    seed: int = 0
    steps: int = 1000
    precision: str = "float32"
    accumulate: int = 1
    remat: str = "none"
    init_from: str = ""
    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
