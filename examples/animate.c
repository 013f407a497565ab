/* Speech to curves on ONNX Runtime's C API; nothing of a2fjax is needed.
 *
 *     cc -O2 -I$ORT_INCLUDE animate.c -L$ORT_LIB -lonnxruntime -lm -o animate
 *     ./animate BUNDLE in.wav > out.csv
 *
 * ORT_INCLUDE is the folder of onnxruntime_c_api.h, ORT_LIB that of libonnxruntime.so. in.wav holds
 * 16-bit PCM, one channel, 16 kHz. Names and constants come from the metadata inside the graph.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

enum { HOP = 320, CHANNELS = 72, EMOTIONS = 5, MOST_INPUTS = 8 };

static const OrtApi *ort;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "animate: error: %s: %s\n", what, why);
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
static float *read_wav(const char *path, size_t *samples, size_t *frames) {
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
      *samples = size / 2;
      if (!*samples) fail(path, "has no samples");
      *frames = (*samples + HOP - 1) / HOP;
      float *audio = calloc(*frames * HOP, sizeof *audio);
      if (!audio) fail(path, "does not fit into memory");
      for (size_t i = 0; i < *samples; i++) {
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

/* Prints "time,jawOpen,..." from the JSON list of channels in the metadata. */
static void print_names(const OrtSession *session, OrtAllocator *allocator) {
  OrtModelMetadata *metadata;
  char *json = NULL;
  check(ort->SessionGetModelMetadata(session, &metadata), "metadata");
  check(ort->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "channels", &json),
        "metadata");
  if (!json) fail("model.onnx", "has no channels in its metadata");
  printf("time");
  for (char *at = json; (at = strstr(at, "\"name\": \""));) {
    at += strlen("\"name\": \"");
    printf(",%.*s", (int)strcspn(at, "\""), at);
  }
  printf("\n");
  check(ort->AllocatorFree(allocator, json), "metadata");
  ort->ReleaseModelMetadata(metadata);
}

/* Returns the size of the last axis of input `index`. */
static int64_t last_size(const OrtSession *session, size_t index) {
  OrtTypeInfo *type;
  const OrtTensorTypeAndShapeInfo *info;
  int64_t shape[4];
  size_t rank;
  check(ort->SessionGetInputTypeInfo(session, index, &type), "inputs");
  check(ort->CastTypeInfoToTensorInfo(type, &info), "inputs");
  check(ort->GetDimensionsCount(info, &rank), "inputs");
  if (!rank || rank > 4) fail("model.onnx", "has an input of unknown shape");
  check(ort->GetDimensions(info, shape, rank), "inputs");
  ort->ReleaseTypeInfo(type);
  return shape[rank - 1];
}

static OrtValue *tensor(OrtMemoryInfo *memory, void *data, size_t bytes, const int64_t *shape,
                        size_t rank, ONNXTensorElementDataType type) {
  OrtValue *value = NULL;
  check(ort->CreateTensorWithDataAsOrtValue(memory, data, bytes, shape, rank, type, &value),
        "input");
  return value;
}

int main(int argc, char **argv) {
  if (argc != 3) fail("usage", "animate BUNDLE in.wav > out.csv");
  char path[4096];
  if (snprintf(path, sizeof path, "%s/onnx/model.onnx", argv[1]) >= (int)sizeof path)
    fail(argv[1], "is too long a name");
  size_t samples, frames;
  float *audio = read_wav(argv[2], &samples, &frames);

  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!ort) fail("ONNX Runtime", "the library is older than the header");
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtMemoryInfo *memory;
  OrtAllocator *allocator;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "animate", &env), "ONNX Runtime");
  check(ort->CreateSessionOptions(&options), "ONNX Runtime");
  check(ort->SetIntraOpNumThreads(options, 1), "ONNX Runtime");
  check(ort->CreateSession(env, path, options, &session), path);
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "ONNX Runtime");
  check(ort->GetAllocatorWithDefaultOptions(&allocator), "ONNX Runtime");

  float *emotion = calloc(frames * EMOTIONS, sizeof *emotion);
  if (!emotion) fail(argv[2], "does not fit into memory");
  for (size_t t = 0; t < frames; t++) emotion[t * EMOTIONS] = 1.0f; /* neutral */
  int32_t count = (int32_t)samples;
  float level = 0.0f, *identity = NULL; /* 0: measured by the graph */

  const char *names[MOST_INPUTS];
  OrtValue *inputs[MOST_INPUTS];
  size_t number;
  check(ort->SessionGetInputCount(session, &number), "inputs");
  if (number > MOST_INPUTS) fail(path, "has more inputs than this program knows");
  for (size_t i = 0; i < number; i++) {
    char *name;
    check(ort->SessionGetInputName(session, i, allocator, &name), "inputs");
    names[i] = name;
    const int64_t one[] = {1}, row[] = {1, (int64_t)(frames * HOP)};
    const int64_t cube[] = {1, (int64_t)frames, EMOTIONS};
    const ONNXTensorElementDataType real = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    if (!strcmp(name, "audio")) {
      inputs[i] = tensor(memory, audio, frames * HOP * sizeof *audio, row, 2, real);
    } else if (!strcmp(name, "samples")) {
      inputs[i] =
          tensor(memory, &count, sizeof count, one, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
    } else if (!strcmp(name, "speech_level")) {
      inputs[i] = tensor(memory, &level, sizeof level, one, 1, real);
    } else if (!strcmp(name, "emotion")) {
      inputs[i] = tensor(memory, emotion, frames * EMOTIONS * sizeof *emotion, cube, 3, real);
    } else if (!strcmp(name, "identity")) { /* zeros: the mean identity */
      const int64_t shape[] = {1, last_size(session, i)};
      identity = calloc((size_t)shape[1], sizeof *identity);
      if (!identity) fail(path, "does not fit into memory");
      inputs[i] = tensor(memory, identity, (size_t)shape[1] * sizeof *identity, shape, 2, real);
    } else {
      fail(name, "is an input that this program does not know");
    }
  }

  const char *outputs[] = {"motion"};
  OrtValue *motion = NULL;
  float *values;
  check(ort->Run(session, NULL, names, (const OrtValue *const *)inputs, number, outputs, 1,
                 &motion),
        path);
  check(ort->GetTensorMutableData(motion, (void **)&values), path);
  print_names(session, allocator);
  for (size_t t = 0; t < frames; t++) {
    printf("%.3f", (double)t / 50.0);
    for (int c = 0; c < CHANNELS; c++) printf(",%.7f", (double)values[t * CHANNELS + c]);
    printf("\n");
  }

  ort->ReleaseValue(motion);
  for (size_t i = 0; i < number; i++) {
    ort->ReleaseValue(inputs[i]);
    check(ort->AllocatorFree(allocator, (void *)names[i]), "inputs");
  }
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(env);
  free(identity);
  free(emotion);
  free(audio);
  return 0;
}
