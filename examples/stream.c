/* Live speech to curves on ONNX Runtime's C API; nothing of a2fjax is needed.
 *
 *     cc -O2 -I$ORT_INCLUDE stream.c -L$ORT_LIB -lonnxruntime -o stream
 *     ./stream BUNDLE in.wav > out.csv
 *
 * ORT_INCLUDE is the folder of onnxruntime_c_api.h, ORT_LIB that of libonnxruntime.so. in.wav holds
 * 16-bit PCM, one channel, 16 kHz. Names and constants come from the metadata inside the graph.
 *
 * A program of your own takes stream_open, stream_push, stream_frames and stream_reset. Nothing is
 * allocated after stream_open; ONNX Runtime takes what it needs from its arena.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

enum { HOP = 320, CHANNELS = 72, MOST = 24, QUEUE = 64 };

static const OrtApi *ort;
static OrtMemoryInfo *memory;
static OrtAllocator *allocator;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "stream: error: %s: %s\n", what, why);
  exit(2);
}

static void check(OrtStatus *status, const char *what) {
  if (status) fail(what, ort->GetErrorMessage(status));
}

static uint32_t little(const unsigned char *bytes, int count) {
  uint32_t value = 0;
  while (count--) value = value << 8 | bytes[count];
  return value;
}

/* Reads a WAV file into samples padded with zeros to whole frames; the caller frees them. */
static float *read_wav(const char *path, size_t *frames) {
  FILE *file = fopen(path, "rb");
  if (!file) fail(path, "cannot be opened");
  unsigned char head[12], chunk[8], format[16];
  if (fread(head, 1, 12, file) != 12 || memcmp(head, "RIFF", 4) || memcmp(head + 8, "WAVE", 4))
    fail(path, "not a WAV file");
  int known = 0;
  while (fread(chunk, 1, 8, file) == 8) {
    uint32_t size = little(chunk + 4, 4);
    if (!memcmp(chunk, "fmt ", 4) && size >= 16) {
      if (fread(format, 1, 16, file) != 16) fail(path, "cut short");
      known = little(format, 2) == 1 && little(format + 2, 2) == 1 &&
              little(format + 4, 4) == 16000 && little(format + 14, 2) == 16;
      if (!known) fail(path, "expected 16-bit PCM, one channel, 16000 Hz");
      size -= 16;
    } else if (!memcmp(chunk, "data", 4)) {
      if (!known) fail(path, "has no format before its samples");
      size_t samples = size / 2;
      if (!samples) fail(path, "has no samples");
      *frames = (samples + HOP - 1) / HOP;
      float *audio = calloc(*frames * HOP, sizeof *audio);
      if (!audio) fail(path, "does not fit into memory");
      for (size_t i = 0; i < samples; i++) {
        unsigned char pair[2];
        if (fread(pair, 1, 2, file) != 2) fail(path, "cut short");
        audio[i] = (float)(int16_t)little(pair, 2) / 32768.0f;
      }
      fclose(file);
      return audio;
    }
    fseek(file, (long)(size + size % 2), SEEK_CUR);
  }
  fail(path, "has no samples");
  return NULL;
}

/* Returns a text of the graph's metadata; the caller gives it back to the allocator. */
static char *metadata(const OrtSession *session, const char *key) {
  OrtModelMetadata *all;
  char *json = NULL;
  check(ort->SessionGetModelMetadata(session, &all), "metadata");
  check(ort->ModelMetadataLookupCustomMetadataMap(all, allocator, key, &json), "metadata");
  if (!json) fail(key, "is not in the graph's metadata");
  ort->ReleaseModelMetadata(all);
  return json;
}

/* Prints "time,jawOpen,..." from the JSON list of channels. */
static void print_names(const OrtSession *session) {
  char *json = metadata(session, "channels");
  printf("time");
  for (char *at = json; (at = strstr(at, "\"name\": \""));) {
    at += strlen("\"name\": \"");
    printf(",%.*s", (int)strcspn(at, "\""), at);
  }
  printf("\n");
  check(ort->AllocatorFree(allocator, json), "metadata");
}

/* Live audio of one speaker. The state moves between two sets of tensors. */
typedef struct {
  OrtSession *session;
  size_t inputs, outputs, lookahead, early, filled, first, ready;
  char *in[MOST], out[MOST][64];
  const char *names[MOST]; /* of the outputs */
  OrtValue *given[2][MOST], *made[2][MOST];
  int turn;
  float *audio, motion[CHANNELS], queue[QUEUE][CHANNELS];
  uint8_t *reset;
} Stream;

/* Makes a tensor of zeros like input `index`, for one stream, and returns its data. */
static void *zeros(const Stream *s, size_t index, OrtValue **value) {
  const char *name = s->in[index];
  OrtTypeInfo *type;
  const OrtTensorTypeAndShapeInfo *info;
  ONNXTensorElementDataType kind;
  int64_t shape[4];
  size_t rank;
  check(ort->SessionGetInputTypeInfo(s->session, index, &type), name);
  check(ort->CastTypeInfoToTensorInfo(type, &info), name);
  check(ort->GetTensorElementType(info, &kind), name);
  check(ort->GetDimensionsCount(info, &rank), name);
  if (rank > 4) fail(name, "has more axes than this program knows");
  check(ort->GetDimensions(info, shape, rank), name);
  size_t bytes = kind == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL ? 1 : 4;
  for (size_t i = 0; i < rank; i++) bytes *= (size_t)(shape[i] = shape[i] < 1 ? 1 : shape[i]);
  void *data = calloc(1, bytes);
  if (!data) fail(name, "does not fit into memory");
  check(ort->CreateTensorWithDataAsOrtValue(memory, data, bytes, shape, rank, kind, value), name);
  ort->ReleaseTypeInfo(type);
  return data;
}

static void stream_reset(Stream *s) {
  *s->reset = 1; /* The next call starts anew. */
  s->early = s->lookahead; /* The first calls return no frames. */
  s->filled = s->first = s->ready = 0;
}

static void stream_open(Stream *s, OrtSession *session) {
  const int64_t shape[] = {1, 1, CHANNELS};
  memset(s, 0, sizeof *s);
  s->session = session;
  check(ort->CreateTensorWithDataAsOrtValue(memory, s->motion, sizeof s->motion, shape, 3,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &s->made[0][0]),
        "motion");
  s->made[1][0] = s->made[0][0];
  s->names[s->outputs++] = "motion";
  check(ort->SessionGetInputCount(session, &s->inputs), "inputs");
  if (s->inputs > MOST) fail("step.onnx", "has more inputs than this program knows");
  for (size_t i = 0; i < s->inputs; i++) {
    check(ort->SessionGetInputName(session, i, allocator, &s->in[i]), "inputs");
    void *data = zeros(s, i, &s->given[0][i]);
    s->given[1][i] = s->given[0][i];
    if (!strcmp(s->in[i], "audio")) s->audio = data;
    if (!strcmp(s->in[i], "reset")) s->reset = data;
    if (!strcmp(s->in[i], "active")) *(uint8_t *)data = 1;
    if (!strcmp(s->in[i], "emotion")) *(float *)data = 1.0f; /* neutral */
    if (strncmp(s->in[i], "in.", 3)) continue;
    zeros(s, i, &s->given[1][i]);
    snprintf(s->out[i], sizeof s->out[i], "out.%s", s->in[i] + 3);
    s->names[s->outputs] = s->out[i];
    s->made[0][s->outputs] = s->given[1][i];
    s->made[1][s->outputs++] = s->given[0][i];
  }
  if (!s->audio || !s->reset) fail("step.onnx", "is no step");
  char *json = metadata(session, "look_ahead"), *at = strstr(json, "\"frames\": ");
  if (!at) fail("look_ahead", "has no frames");
  s->lookahead = (size_t)strtoul(at + strlen("\"frames\": "), NULL, 10);
  check(ort->AllocatorFree(allocator, json), "metadata");
  stream_reset(s);
}

/* Hears samples until the queue of frames is full; returns how many it heard. */
static size_t stream_push(Stream *s, const float *samples, size_t count) {
  size_t heard = 0;
  while (heard < count && s->ready < QUEUE) {
    s->audio[s->filled++] = samples[heard++];
    if (s->filled < HOP) continue;
    s->filled = 0;
    check(ort->Run(s->session, NULL, (const char *const *)s->in,
                   (const OrtValue *const *)s->given[s->turn], s->inputs, s->names, s->outputs,
                   s->made[s->turn]),
          "step.onnx");
    s->turn = !s->turn;
    *s->reset = 0;
    if (s->early) {
      s->early--;
      continue;
    }
    memcpy(s->queue[(s->first + s->ready++) % QUEUE], s->motion, sizeof s->motion);
  }
  return heard;
}

/* Moves at most `most` frames out of the queue; returns how many. */
static size_t stream_frames(Stream *s, float (*out)[CHANNELS], size_t most) {
  size_t count = s->ready < most ? s->ready : most;
  for (size_t i = 0; i < count; i++) memcpy(out[i], s->queue[(s->first + i) % QUEUE], sizeof *out);
  s->first = (s->first + count) % QUEUE;
  s->ready -= count;
  return count;
}

static void play(OrtSession *session, const float *audio, size_t frames) {
  static Stream stream;
  static const float silence[HOP];
  float out[QUEUE][CHANNELS];
  stream_open(&stream, session);
  for (size_t done = 0, heard = 0; done < frames;) {
    size_t left = frames * HOP - heard, block = left < 1600 ? left : 1600;
    heard += left ? stream_push(&stream, audio + heard, block)
                  : (stream_push(&stream, silence, HOP), 0); /* for the last frames */
    size_t count = stream_frames(&stream, out, QUEUE);
    for (size_t i = 0; i < count; i++) {
      printf("%.3f", (double)done++ / 50.0);
      for (int c = 0; c < CHANNELS; c++) printf(",%.7f", (double)out[i][c]);
      printf("\n");
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 3) fail("usage", "stream BUNDLE in.wav > out.csv");
  char path[4096];
  size_t frames;
  if (snprintf(path, sizeof path, "%s/onnx/step.onnx", argv[1]) >= (int)sizeof path)
    fail(argv[1], "is too long a name");
  float *audio = read_wav(argv[2], &frames);
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!ort) fail("ONNX Runtime", "the library is older than the header");
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "stream", &env), "ONNX Runtime");
  check(ort->CreateSessionOptions(&options), "ONNX Runtime");
  check(ort->SetIntraOpNumThreads(options, 1), "ONNX Runtime");
  check(ort->CreateSession(env, path, options, &session), path);
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "ONNX Runtime");
  check(ort->GetAllocatorWithDefaultOptions(&allocator), "ONNX Runtime");
  print_names(session);
  play(session, audio, frames);
  return 0;
}
