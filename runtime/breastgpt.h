/* BreastGPT Runtime: the public C API.
 *
 * Research software: not a medical device, not for diagnosis.
 *
 * Example (compiled and run by tests/test_api.cpp):
 *
 *   bg_error error;
 *   bg_model* model = NULL;
 *   bg_session* session = NULL;
 *   const bg_answer* answer = NULL;
 *   if (bg_model_open("model.gguf", &model, &error) != BG_OK) return fail(error.message);
 *   bg_session_params params = bg_session_params_default();
 *   params.threads = 2;
 *   if (bg_session_open(model, &params, &session, &error) != BG_OK) return fail(error.message);
 *   bg_image image = {sizeof image, width, height, rgb, NULL};
 *   if (bg_session_add_image(session, &image, NULL, &error) != BG_OK) return fail(error.message);
 *   if (bg_session_ask(session, "Is there a mass?", NULL, NULL, NULL, &answer, &error) != BG_OK) return fail(error.message);
 *   puts(answer->text);
 *   bg_session_close(session);
 *   bg_model_close(model);
 *
 * Rules
 * - Every function that can fail returns a bg_status and fills *error when error is not NULL. Nothing is thrown, printed or logged except through the
 *   callbacks, and no message contains prompt text, answers or pixels.
 * - A model is immutable and may be used by any number of sessions and threads. A session is one conversation: one thread at a time.
 * - Structures begin with struct_size so that they can grow: set it to sizeof (the *_default functions do). Pass NULL for the defaults.
 * - Text is UTF-8, zero-terminated. Sizes are bytes, picture sizes pixels, times seconds. Strings and arrays handed out belong to the library.
 * - After an error a session is as it was before the call, and may go on.
 */
#ifndef BREASTGPT_H
#define BREASTGPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define BG_API __attribute__((visibility("default")))
#else
#define BG_API
#endif

typedef enum bg_status {
  BG_OK = 0,
  BG_INVALID_ARGUMENT = 1, /* the caller asked for something that cannot be done */
  BG_NOT_FOUND = 2,        /* a file is missing or cannot be opened */
  BG_BAD_FILE = 3,         /* a file's bytes are wrong */
  BG_UNSUPPORTED = 4,      /* valid, but not handled by this version or machine */
  BG_TOO_LARGE = 5,        /* over a limit: memory cap, pixels, context */
  BG_IO = 6,               /* reading or writing failed */
  BG_CANCELLED = 7,        /* the cancel callback said so */
  BG_INTERNAL = 8,         /* a defect of this library */
  BG_DEVICE = 9            /* a GPU is missing, or failed: then the session is over (every later call says so); the model and other sessions go on */
} bg_status;

typedef struct bg_error {
  bg_status status;
  char message[4096]; /* what, expected, got, where, what to do; cut at a character when longer */
} bg_error;

typedef struct bg_model bg_model;
typedef struct bg_session bg_session;

BG_API const char* bg_version(void);                 /* "0.1.0" */
BG_API const char* bg_status_name(bg_status status); /* "bad file" */
/* GPU `index`: its name, or NULL after the last; then *why_none (may be NULL) says why there is none at all. The text is valid until the thread's next call. */
BG_API const char* bg_gpu(int index, const char** why_none);
BG_API const char* bg_cuda_build(void);              /* "CUDA 13.0, code for sm_80 sm_90, PTX 90": what this build has for GPUs; NULL: nothing */
BG_API const char* bg_instruction_set(void);         /* the one that backend "cpu" takes here: "avx2" */
/* Instruction set `index` of this build, the plainest first; NULL after the last. *usable (may be NULL): whether this machine has it. */
BG_API const char* bg_built_instruction_set(int index, int* usable);

/* ---- callbacks: all optional, called on the thread that called the library ---- */
typedef struct bg_callbacks {
  size_t struct_size;
  void* user;                                                                  /* passed to each */
  void (*log)(void* user, int level, const char* message);                     /* 0 error, 1 warning, 2 information */
  void (*progress)(void* user, const char* stage, int64_t done, int64_t total); /* "weights", "image", "slide", "selection", "prompt", "layers", "answer", "options", "verify" */
  int (*cancel)(void* user);                                                   /* non-zero: stop soon with BG_CANCELLED */
} bg_callbacks;

/* ---- model ---- */
/* Maps the weights file and checks every size in it. Fast: weights are read when they are first used. */
BG_API bg_status bg_model_open(const char* path, bg_model** model, bg_error* error);
BG_API void bg_model_close(bg_model* model); /* sessions that are still open keep the weights mapped; NULL is fine */

typedef struct bg_model_info {
  size_t struct_size;
  const char* path;
  const char* type;             /* config model_type: "breastgpt" or "qwen3_vl" */
  const char* weight_type;      /* of the matrices in the decoder's layers, that of most values first: "BF16", "Q4_K + Q6_K" */
  const char* weights_sha256;   /* names this set of weights: SHA-256 over the file's tensor hashes */
  const char* selector;         /* "CoverageTokenSelector", "ConceptSelector", or "none" */
  int selector_uses_text;
  uint64_t file_bytes;
  int64_t tensors, parameters;
  int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary, context; /* decoder */
  int64_t vit_depth, vit_hidden, vit_ffn, vit_heads, deepstack_levels;
  int64_t image_tokens, volume_tokens, slide_tokens;                           /* token budgets */
} bg_model_info;
BG_API bg_status bg_model_get_info(const bg_model* model, bg_model_info* info, bg_error* error);

/* Recomputes the SHA-256 of every tensor and compares it with the file's list. BG_BAD_FILE names the tensors that differ. */
BG_API bg_status bg_model_verify(const bg_model* model, const bg_callbacks* callbacks, bg_error* error);

/* ---- what a session can look at ---- */
typedef struct bg_image {
  size_t struct_size;
  int64_t width, height;
  const uint8_t* rgb;      /* (height, width, 3), or NULL */
  const uint16_t* grey16;  /* (height, width) when rgb is NULL */
} bg_image;

typedef struct bg_volume {
  size_t struct_size;
  int64_t width, height, depth; /* voxels along x, y, z */
  const float* voxels;          /* (depth, height, width), slope and intercept applied, in the file's own orientation */
} bg_volume;

typedef struct bg_slide {
  size_t struct_size;
  int64_t tiles, feature_dim;
  const float* features;   /* (tiles, feature_dim) CONCH v1.5 embeddings, in the file's order */
} bg_slide;

typedef struct bg_image_params {
  size_t struct_size;
  int64_t token_budget;    /* kept tokens; 0: the model's (image_token_num) */
  int64_t max_tokens;      /* tokens before selection: the picture is reduced to at most this × 1024 pixels; 0: the model's (image_max_tokens, 1024 as published) */
  int no_prescale;         /* non-zero: leave out the first reduction to 1,048,576 pixels that the training pictures had */
  int pil_exact;           /* non-zero: 16-bit grey is clipped at 255 as PIL does, instead of windowed */
  int has_window;          /* 16-bit grey: use window_level and window_width instead of min … max */
  double window_level, window_width;
} bg_image_params;
BG_API bg_image_params bg_image_params_default(void);

typedef struct bg_volume_params {
  size_t struct_size;
  int64_t token_budget;    /* kept tokens; 0: the model's (video_token_num) */
  int no_prescale;         /* non-zero: leave out the preparation that training volumes had (longest side to 384, 48 slices, as published; int16) */
  int has_window;          /* clip to level ± width/2 first */
  double window_level, window_width;
} bg_volume_params;
BG_API bg_volume_params bg_volume_params_default(void);

/* ---- sessions ---- */
typedef struct bg_session_params {
  size_t struct_size;
  const char* backend;     /* "cpu" (default: the best instruction set), "cpu/" and a built instruction set, "cuda" or "cuda:N": a GPU, "ref" (float32
                              definition), "ref64" (float64), "emulated": a GPU's kernels on the CPU, for tests, slow */
  int threads;             /* default: the machine's cores. Never changes a result */
  int64_t context;         /* tokens of the whole conversation, default 4096 or the model's limit if smaller */
  int64_t chunk;           /* prompt tokens at once, default 512: memory against speed. Never changes a result */
  const char* selector;    /* NULL: the checkpoint's. "coverage", "coverage-text", "concept" (needs its weights), "none" */
  uint64_t memory_cap;     /* bytes, 0: none. A request that plans to take more is refused before it starts */
  const char* trace_folder; /* one line per stage of the model goes to trace.jsonl there; NULL: off */
  int trace_data;          /* non-zero: the tensors too. They contain what the model saw: treat them like the picture */
  const bg_callbacks* callbacks; /* NULL: none; read when the session is opened */
  const char* precision;   /* NULL or "fast": activations may be rounded for the machine's BF16 and int8 instructions; "float32": never. ref: its own type */
  const char* kv_type;     /* keys and values: NULL or "auto" (BF16 with fast, F32 with float32), "f32", "bf16", "q8_0" (heads of a multiple of 32) */
  int cublas;              /* non-zero: a GPU's products of many rows by cuBLASLt where the machine has it: faster on some GPUs, but with bits of its own that
                              change with GPU and library. 0: our own kernels, the same bits for any prompt cut in any way */
  uint64_t vram;           /* bytes of the GPU that model and session may take, 0: what is free. Weights that do not fit are read over the bus */
} bg_session_params;
BG_API bg_session_params bg_session_params_default(void);

BG_API bg_status bg_session_open(const bg_model* model, const bg_session_params* params, bg_session** session, bg_error* error);
BG_API void bg_session_close(bg_session* session); /* NULL is fine */

/* System text, once, before the first question. There is no default. */
BG_API bg_status bg_session_system(bg_session* session, const char* text, bg_error* error);

/* Encode a picture, volume or slide for the next question. The data are not needed after the call. token_budget of a slide: 0 or kept tokens. */
BG_API bg_status bg_session_add_image(bg_session* session, const bg_image* image, const bg_image_params* params, bg_error* error);
BG_API bg_status bg_session_add_volume(bg_session* session, const bg_volume* volume, const bg_volume_params* params, bg_error* error);
BG_API bg_status bg_session_add_slide(bg_session* session, const bg_slide* slide, int64_t token_budget, bg_error* error);

typedef struct bg_generation {
  size_t struct_size;
  int64_t max_tokens;        /* default 1024 */
  double temperature;        /* default 0: greedy, lowest token id on a tie */
  int64_t top_k;             /* 0: all */
  double top_p;              /* default 1 */
  double repetition_penalty; /* default 1: none */
  uint64_t seed;
} bg_generation;
BG_API bg_generation bg_generation_default(void);

typedef struct bg_answer {
  const char* text;          /* UTF-8 */
  const int32_t* ids;        /* produced tokens, stop token not included */
  const double* logprobs;    /* natural logarithm of each one's probability under the model */
  int64_t count;
  int stopped;               /* 1: the model ended its answer; 0: max_tokens, the context, or the text callback ended it */
  int64_t prompt_tokens;     /* of the whole conversation before this answer */
  int64_t reused_tokens;     /* of these, taken from the cache */
  double media_seconds, prompt_seconds, decode_seconds; /* media: what was added since the last answer */
} bg_answer;

/* Text as it comes, always whole UTF-8 characters. Non-zero ends the answer there. */
typedef int (*bg_text_callback)(void* user, const char* text, size_t bytes);

/* Asks about what was added since the last question and everything before. Markers in the question place the media: <image> (also for slides where the
 * text has no <slide>), <slide>, <volume> or <video>; media without a marker come first, volumes before images and slides. *answer is valid until the
 * session's next call. */
BG_API bg_status bg_session_ask(bg_session* session, const char* question, const bg_generation* generation, bg_text_callback on_text, void* user, const bg_answer** answer,
                                bg_error* error);

/* A turn that happened before or elsewhere: the question, with the media added for it, and the answer that was given. Nothing is generated; the next question
 * goes on from there. The answer may hold the model's box and object tokens ("<|box_start|>(1,2),(3,4)<|box_end|>"), but no other control token. */
BG_API bg_status bg_session_given(bg_session* session, const char* question, const char* answer, bg_error* error);

/* Scores given answers: exact log-likelihood of each option's tokens right after the prompt. The conversation stays as it was before. */
typedef struct bg_score {   /* arrays of it are handed out: it will not grow */
  double logprob;           /* Σ natural logarithms over the option's tokens */
  double end_logprob;       /* of <|im_end|> right after them */
  double probability;       /* softmax of logprob over the options given */
  int64_t tokens;
} bg_score;
BG_API bg_status bg_session_score(bg_session* session, const char* question, const char* const* options, int64_t count, const bg_score** scores, bg_error* error);

/* Boxes in the last answer, in every form the model writes them (MODEL.md §5b). */
typedef struct bg_box {     /* arrays of it are handed out: it will not grow */
  const char* label;        /* name before the box, or "" */
  int dimensions;           /* 2 or 3 */
  int point;                /* a single position */
  int swapped;              /* the corners had to be ordered */
  int outside;              /* a number outside 0 … 1000, kept as written */
  double low[3], high[3];   /* as written, 0 … 1000; x, y, z */
  int64_t medium;           /* index of what it lies on, −1: not known */
  double source_low[3], source_high[3]; /* pixels or voxels of the medium as given; z of a 2-D box: all slices */
} bg_box;
BG_API bg_status bg_session_boxes(bg_session* session, const bg_box** boxes, int64_t* count, bg_error* error);

/* What became of medium `index` (0: the first of the session). Valid until the session is closed; kept may change with the next question when the
 * selection uses the text, and is not known before the first one then. */
typedef enum bg_medium_kind { BG_IMAGE = 0, BG_VOLUME = 1, BG_SLIDE = 2 } bg_medium_kind;
typedef struct bg_medium_report {
  size_t struct_size;
  bg_medium_kind kind;
  int64_t width, height, depth;             /* as given: pixels, voxels; slides: tiles, 1, 1 */
  int64_t prepared_width, prepared_height, prepared_depth; /* after the preparation that training data had */
  int64_t resized_width, resized_height, resized_depth;    /* what the ViT saw; depth in frames */
  const char* grey16;                       /* images: "none" (8-bit input), "min-max", "window", "pil-exact" */
  double window_low, window_high;           /* source values that became 0 and 255 (16-bit images, volumes) */
  int64_t tokens, kept_tokens;              /* before and after selection */
  int64_t grid_frames, grid_rows, grid_cols; /* of tokens before selection */
  const char* sha256;                       /* of the pixels, voxels or features as given */
  int64_t levels;                           /* 1 + DeepStack levels; each keeps its own rows */
} bg_medium_report;
BG_API int64_t bg_session_media_count(const bg_session* session);
BG_API bg_status bg_session_medium_report(const bg_session* session, int64_t index, bg_medium_report* report, bg_error* error);
/* Kept token indices of a level, ascending, *count of them. gains: coverage gain of each, or NULL where there is none (all tokens passed, or another
 * selector). coverage: share of the most that any choice could cover, or NaN where there is none. */
BG_API bg_status bg_session_medium_kept(const bg_session* session, int64_t index, int64_t level, const int64_t** kept, const double** gains, int64_t* count, double* coverage,
                                        bg_error* error);

/* ---- memory, before anything is computed ---- */
typedef struct bg_medium_size {  /* will not grow */
  bg_medium_kind kind;
  int64_t width, height, depth;  /* pixels; voxels; slides: tiles, feature_dim, – */
} bg_medium_size;
typedef struct bg_memory_plan {
  size_t struct_size;
  uint64_t weights;    /* mapped file, shared between processes */
  uint64_t kv_cache, media, workspace, pixels;
  uint64_t total;      /* what the session takes for itself: all but weights */
  uint64_t packed_weights; /* in total; matrices in panels, made by the model's first CPU session for all when its file has them in rows */
  uint64_t device_total, device_weights; /* of a GPU's memory: KV cache, media, workspace, weights, and room through which host_weights come; these weights alone. total is then the host's */
  uint64_t host_weights;   /* in total; weights that do not fit the GPU */
} bg_memory_plan;
/* One turn of a fresh session with these media, a system text (or NULL) and a question. */
BG_API bg_status bg_plan(const bg_model* model, const bg_session_params* params, const bg_medium_size* media, int64_t count, const bg_image_params* image_params,
                         const bg_volume_params* volume_params, int64_t slide_budget, const char* system_text, const char* question, bg_memory_plan* plan, bg_error* error);

#ifdef __cplusplus
}
#endif
#endif
