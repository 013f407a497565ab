// Speech to curves with ONNX Runtime in Node or a browser; nothing of a2fjax is needed.
//
//     npm install onnxruntime-node
//     node animate.mjs BUNDLE in.wav > out.csv
//
// A browser imports `open` and gives it onnxruntime-web and the base URL of the bundle:
//
//     import * as ort from "onnxruntime-web";
//     const model = await open("https://example.org/bundle", { ort, fetchBytes });
//     const { channels, motion, frames } = await model.animate(samples);
//
// and for live audio, with a bundle that has a step:
//
//     const stream = model.stream({ happy: 0.7 });
//     await stream.push(samples); // any number of them
//     for (const row of stream.frames()) { ... } // 72 values each
//     await stream.reset();

/**
 * Opens a bundle.
 *
 * @param {string} bundle folder or base URL.
 * @param {{ort: object, fetchBytes: (path: string) => Promise<Uint8Array>}} platform the runtime
 *   (onnxruntime-node or onnxruntime-web), and what reads a file of the bundle.
 */
export async function open(bundle, { ort, fetchBytes }) {
  const text = new TextDecoder().decode(await fetchBytes(`${bundle}/a2fjax.json`));
  const manifest = JSON.parse(text);
  if (manifest.schema !== 1) throw new Error(`${bundle}: schema ${manifest.schema}, expected 1`);
  const sessions = {};
  for (const name of ["model", "step"]) {
    const file = `onnx/${name}.onnx`;
    if (file in manifest.graphs) {
      sessions[name] = await ort.InferenceSession.create(await fetchBytes(`${bundle}/${file}`));
    }
  }
  return new Model(ort, sessions, manifest);
}

class Model {
  constructor(ort, sessions, manifest) {
    Object.assign(this, { ort, sessions, manifest });
    this.channels = manifest.channels.map((channel) => channel.name);
  }

  /** Returns weights in the manifest's order; neutral completes their sum to 1. */
  emotionRow(emotion) {
    const others = Object.values(emotion).reduce((sum, weight) => sum + weight, 0);
    const weights = { neutral: 1 - others, ...emotion };
    return this.manifest.emotions.map((name) => weights[name] ?? 0);
  }

  /**
   * Opens a stream of live audio.
   *
   * @param {Object<string, number>} emotion weights by name.
   * @param {Float32Array} [identity] output of identity.onnx; the mean identity without it.
   */
  stream(emotion = {}, identity = undefined) {
    if (!this.sessions.step) throw new Error("the bundle has no step: its model hears whole recordings");
    const facts = this.manifest.graphs["onnx/step.onnx"];
    const given = { emotion: Float32Array.from(this.emotionRow(emotion)), identity };
    return new Stream(this.ort, this.sessions.step, facts, given);
  }

  /**
   * Predicts the motion of a whole recording.
   *
   * @param {Float32Array} samples 16 kHz mono, full scale 1.
   * @param {Object<string, number>} emotion weights by name; neutral completes the sum to 1.
   * @param {Float32Array} [identity] output of identity.onnx; the mean identity without it.
   * @returns {Promise<{channels: string[], frames: number, motion: Float32Array}>} motion holds
   *   frames rows of 72 values.
   */
  async animate(samples, emotion = {}, identity = undefined) {
    const { hop } = this.manifest.rates;
    const frames = Math.ceil(samples.length / hop);
    if (!frames) throw new Error("audio: has no samples");
    if (!this.sessions.model) return this.heard(this.stream(emotion, identity), samples, frames);
    const audio = new Float32Array(frames * hop);
    audio.set(samples);
    const row = this.emotionRow(emotion);
    const emotions = Float32Array.from({ length: frames * row.length }, (_, i) => row[i % row.length]);
    const tensor = (type, data, shape) => new this.ort.Tensor(type, data, shape);
    const feeds = {
      audio: tensor("float32", audio, [1, audio.length]),
      samples: tensor("int32", Int32Array.of(samples.length), [1]),
      speech_level: tensor("float32", Float32Array.of(0), [1]), // 0: measured by the graph
      emotion: tensor("float32", emotions, [1, frames, row.length]),
    };
    const { inputs } = this.manifest.graphs["onnx/model.onnx"];
    const who = inputs.find((input) => input.name === "identity");
    if (who) {
      const width = who.shape[1];
      feeds.identity = tensor("float32", identity ?? new Float32Array(width), [1, width]);
    }
    const { motion } = await this.sessions.model.run(feeds);
    return { channels: this.channels, frames, motion: motion.data };
  }

  /** Streams a recording in blocks of 0.1 s, with silence after it for its last frames. */
  async heard(stream, samples, frames) {
    const width = this.channels.length;
    const motion = new Float32Array(frames * width);
    const audio = new Float32Array((frames + stream.lookahead) * stream.hop);
    audio.set(samples);
    let row = 0;
    for (let at = 0; at < audio.length; at += 1600) {
      await stream.push(audio.subarray(at, at + 1600));
      for (const values of stream.frames()) motion.set(values, width * row++);
    }
    return { channels: this.channels, frames, motion };
  }
}

/** Motion of live audio; `Model.stream` opens one. */
class Stream {
  constructor(ort, session, facts, given) {
    Object.assign(this, { ort, session, facts, given });
    this.hop = facts.hop;
    this.lookahead = facts.look_ahead.frames;
    this.queue = Promise.resolve();
    this.start();
  }

  start() {
    const kinds = { float32: Float32Array, int32: Int32Array, bool: Uint8Array };
    this.feeds = {};
    for (const { name, dtype, shape } of this.facts.inputs) {
      const dims = shape.map((size) => (size === "B" ? 1 : size));
      const zeros = new kinds[dtype](dims.reduce((product, size) => product * size, 1));
      this.feeds[name] = new this.ort.Tensor(dtype, this.given[name] ?? zeros, dims);
    }
    this.feeds.active = new this.ort.Tensor("bool", Uint8Array.of(1), [1]);
    this.block = new Float32Array(this.hop);
    this.filled = 0;
    this.early = this.lookahead; // The first calls return no frames.
    this.ready = [];
  }

  /** Hears samples (Float32Array, 16 kHz mono, any number); calls may overlap and keep their order. */
  push(samples) {
    return this.after(() => this.hear(samples));
  }

  /** Starts anew and forgets frames that were not taken. */
  reset() {
    return this.after(() => this.start());
  }

  /** Returns the rows of 72 values that are ready, and lets go of them. */
  frames() {
    return this.ready.splice(0);
  }

  after(work) {
    const done = this.queue.then(work);
    this.queue = done.catch(() => {});
    return done;
  }

  async hear(samples) {
    for (let at = 0; at < samples.length; ) {
      const part = samples.subarray(at, at + this.hop - this.filled);
      this.block.set(part, this.filled);
      this.filled += part.length;
      at += part.length;
      if (this.filled < this.hop) return;
      this.filled = 0;
      this.feeds.audio = new this.ort.Tensor("float32", this.block, [1, this.hop]);
      const results = await this.session.run(this.feeds);
      for (const { name } of this.facts.state) this.feeds[`in.${name}`] = results[`out.${name}`];
      if (this.early) this.early--;
      else this.ready.push(results.motion.data);
    }
  }
}

/** Returns samples of a 16-bit mono WAV file at 16 kHz. */
export function readWav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const tag = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (tag(0) !== "RIFF" || tag(8) !== "WAVE") throw new Error("not a WAV file");
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    if (tag(at) === "fmt ") {
      const found = [at + 8, at + 10, at + 22].map((place) => view.getUint16(place, true));
      const rate = view.getUint32(at + 12, true);
      if (found.join() !== "1,1,16" || rate !== 16000) {
        throw new Error("expected 16-bit PCM, one channel, 16000 Hz");
      }
    }
    if (tag(at) === "data") {
      const count = Math.floor(Math.min(size, bytes.length - at - 8) / 2);
      return Float32Array.from({ length: count }, (_, i) => view.getInt16(at + 8 + 2 * i, true) / 32768);
    }
    at += 8 + size + (size % 2);
  }
  throw new Error("WAV file without samples");
}

async function main([bundle, path]) {
  const { readFile } = await import("node:fs/promises");
  const module = await import("onnxruntime-node");
  const platform = { ort: module.default ?? module, fetchBytes: (file) => readFile(file) };
  const model = await open(bundle, platform);
  const { channels, frames, motion } = await model.animate(readWav(await readFile(path)));
  const lines = [["time", ...channels].join(",")];
  for (let t = 0; t < frames; t++) {
    const row = motion.subarray(t * channels.length, (t + 1) * channels.length);
    lines.push([(t / 50).toFixed(3), ...Array.from(row, (value) => value.toFixed(7))].join(","));
  }
  console.log(lines.join("\n"));
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("animate.mjs")) {
  await main(process.argv.slice(2)).catch((error) => {
    console.error(`animate.mjs: error: ${error.message}`);
    process.exit(2);
  });
}
