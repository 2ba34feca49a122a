/* ArkInfer's C ABI. Apps, Kotlin, Swift and Python all call these functions.
 *
 * Every call that can fail returns an ark_status: 0 is success. The text of
 * the last failure on this thread is ark_last_error(). No exception crosses
 * this boundary. Structs that callers fill start with their own size, so that
 * later versions can add members at the end.
 */
#ifndef ARKINFER_H
#define ARKINFER_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define ARK_API __declspec(dllexport)
#else
#define ARK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ARK_ABI_VERSION 1

/* Stable for ever: call it before anything else. */
ARK_API int32_t ark_abi_version(void);
ARK_API const char* ark_version(void);

typedef enum ark_status {
  ARK_OK = 0,
  ARK_NOT_FOUND = 1,        /* a path does not exist */
  ARK_DAMAGED_BUNDLE = 2,   /* bytes do not match the manifest */
  ARK_INVALID_BUNDLE = 3,   /* manifest or plan breaks a rule of the format */
  ARK_BUNDLE_VERSION = 4,   /* another format version or ABI */
  ARK_OUT_OF_MEMORY = 5,    /* the memory plan does not fit */
  ARK_CONTEXT_OVERFLOW = 6, /* more tokens than the context holds */
  ARK_INVALID_ARGUMENT = 7,
  ARK_CANCELLED = 8,
  ARK_EXECUTOR_FAILED = 9, /* an executor behind the callback table failed */
  ARK_INTERNAL = 10
} ark_status;

/* The name of a status ("DamagedBundle"), and the last failure's text on this thread. */
ARK_API const char* ark_status_name(ark_status status);
ARK_API const char* ark_last_error(void);

/* ---- models ------------------------------------------------------------ */

typedef struct ark_model ark_model;

/* When the weights are compared with their checksum (manifest and plan always are, before). */
typedef enum ark_check {
  ARK_CHECK_BEFORE = 0, /* before the load returns */
  ARK_CHECK_SKIP = 1,
  /* Beside the first tokens: nothing gets logits before the check has ended, and those who ask for
   * some get ARK_DAMAGED_BUNDLE then. The fastest way from a cold start to an answer. */
  ARK_CHECK_BESIDE = 2
} ark_check;

typedef struct ark_model_options {
  size_t size;      /* sizeof(ark_model_options) */
  int32_t checksum; /* ark_check */
} ark_model_options;

/* Map a bundle folder. options may be NULL. */
ARK_API ark_status ark_model_load(const char* path, const ark_model_options* options,
                                  ark_model** model);
/* Sessions keep their model alive: freeing in any order is safe. */
ARK_API void ark_model_free(ark_model* model);

typedef struct ark_model_info {
  size_t size; /* sizeof(ark_model_info) */
  int32_t vocab_size;
  int32_t layers;
  int32_t kv_heads;
  int32_t max_context; /* tokens: the context the bundle was compiled for */
  int32_t chunk;       /* tokens per prefill chunk */
} ark_model_info;
ARK_API ark_status ark_model_get_info(const ark_model* model, ark_model_info* info);

/* ---- sessions ---------------------------------------------------------- */

typedef struct ark_session ark_session;

/* Number types of the KV cache (docs/bundle.md). */
typedef enum ark_kv_type {
  ARK_KV_DEFAULT = -1, /* what the bundle was compiled for, else fp16 */
  ARK_KV_F16 = 0,
  ARK_KV_F32 = 1,
  ARK_KV_I8 = 2, /* a scale per token and head */
  ARK_KV_I4 = 3  /* a scale and a minimum per 32 dimensions of a token */
} ark_kv_type;
typedef enum ark_activations { ARK_ACTIVATIONS_INT8 = 0, ARK_ACTIVATIONS_F32 = 1 } ark_activations;

/* Which kernels compute the steps for which a bundle brings kernels of its own. */
typedef enum ark_kernels {
  ARK_KERNELS_TUNED = 0,   /* what was measured to be faster here; unmeasured: the bundle's */
  ARK_KERNELS_BUILTIN = 1, /* the library's; the bundle's code is then not loaded */
  ARK_KERNELS_COMPILED = 2 /* the bundle's */
} ark_kernels;

/* What a bundle for a device runs on, where it holds a plan for the CPU too. */
typedef enum ark_on {
  ARK_ON_FASTER = 0, /* what was measured to be faster here; the CPU where the device cannot */
  ARK_ON_DEVICE = 1, /* or an error that says why not */
  ARK_ON_CPU = 2
} ark_on;

typedef struct ark_session_options {
  size_t size;         /* sizeof(ark_session_options) */
  int32_t context;     /* tokens; 0: the bundle's */
  int32_t threads;     /* 0: one per core */
  int32_t kv_type;     /* ark_kv_type */
  int32_t activations; /* ark_activations */
  const char* isa;     /* NULL: the best this CPU has; else one of ark_isas() */
  int32_t kernels;     /* ark_kernels */
  int32_t on;          /* ark_on */
} ark_session_options;

typedef struct ark_memory {
  size_t size;      /* sizeof(ark_memory) */
  uint64_t weights; /* bytes mapped, or on the CPU of a bundle for a device repacked */
  uint64_t kv_cache;
  uint64_t compressed_keys;
  uint64_t arena; /* activations and scratch */
  uint64_t tokenizer;
} ark_memory;
/* What a session with these options will need, before it is made; with ARK_ON_FASTER on the device.
 */
ARK_API ark_status ark_model_plan_memory(const ark_model* model, const ark_session_options* options,
                                         ark_memory* memory);

ARK_API ark_status ark_session_create(ark_model* model, const ark_session_options* options,
                                      ark_session** session);
ARK_API void ark_session_free(ark_session* session);

/* What a session runs on, and why. Speeds are tokens per second as the first load measured them, 0
 * where nothing was measured. */
typedef struct ark_choice {
  size_t size; /* sizeof(ark_choice) */
  int32_t on;  /* ARK_ON_DEVICE or ARK_ON_CPU; ARK_ON_FASTER where nobody knows yet */
  double device_prefill;
  double device_decode;
  double cpu_prefill;
  double cpu_decode;
  char device[256]; /* its name, or "" where there is none */
  char why[1024];   /* one line, or "" for a bundle of the CPU; both end with a zero */
} ark_choice;
ARK_API ark_status ark_session_get_choice(const ark_session* session, ark_choice* choice);
/* What is known before a session is made: nothing is measured, and no kernel is built. */
ARK_API ark_status ark_model_kept_choice(const ark_model* model, const ark_session_options* options,
                                         ark_choice* choice);

/* Append n tokens. logits receives float32 [rows, vocab] where rows is 1
 * (the last token) or, with all_logits = 1, n; it may be NULL when nobody needs them.
 * On failure or cancellation the session keeps the length it had before. */
ARK_API ark_status ark_session_append(ark_session* session, const int32_t* tokens, size_t n,
                                      int32_t all_logits, float* logits);
ARK_API ark_status ark_session_rollback(ark_session* session, size_t length);

/* Run a tree of n draft tokens (at most 64, at most the chunk, and at most what the context still
 * holds) after the session's tokens. parents[i] is the index of the token that token i follows,
 * below i, or -1: the session's last one. Each token sees the session and the path to itself.
 * logits receives float32 [n, vocab]. The length does not change; the next append, rollback or
 * fill drops the tree. */
ARK_API ark_status ark_session_verify_tree(ark_session* session, const int32_t* tokens,
                                           const int32_t* parents, size_t n, float* logits);
/* Keep the tokens of a path through the last tree: n indices, from a child of the session's last
 * token down; none drops the tree. */
ARK_API ark_status ark_session_accept(ark_session* session, const int32_t* path, size_t n);

/* For benchmarks at depth: fills the caches of an empty session as if it held length tokens, with
 * pseudo-random keys and values, the same for the same seed. What follows them means nothing. */
ARK_API ark_status ark_session_fill_random(ark_session* session, size_t length, uint64_t seed);
ARK_API size_t ark_session_length(const ark_session* session);
ARK_API size_t ark_session_context(const ark_session* session);
/* The name of the kernel set in use ("avx2"). */
ARK_API const char* ark_session_isa(const ark_session* session);
ARK_API int32_t ark_session_threads(const ark_session* session);

/* Ask the running append or generation to stop; safe from any thread. The
 * request holds until the next append or generation starts. */
ARK_API void ark_session_cancel(ark_session* session);

/* Blocks that the last appended token attended to in a layer, ascending.
 * count receives how many there are; at most capacity are written.
 * A dense step reports every block. After ark_session_accept that is the path's last token. */
ARK_API ark_status ark_session_selected_blocks(const ark_session* session, int32_t layer,
                                               int32_t kv_head, int32_t* blocks, size_t capacity,
                                               size_t* count);

/* Called after every plan step when set: what the step was, how long it took,
 * and the float32 rows it wrote ([rows, columns], row stride in elements; NULL when the
 * output is not float32). */
typedef void (*ark_trace_fn)(void* user, const char* kernel, const char* stage, double seconds,
                             const float* values, size_t rows, size_t columns, size_t stride);
ARK_API void ark_session_set_trace(ark_session* session, ark_trace_fn trace, void* user);

/* ---- generation, above any executor ------------------------------------ */

/* An executor made elsewhere (onnxruntime, Core ML, a test). Functions return
 * 0 on success. append writes float32 [vocab], the logits of the last token. */
typedef struct ark_executor {
  size_t size; /* sizeof(ark_executor) */
  void* user;
  int32_t vocab_size;
  size_t context;
  int32_t (*append)(void* user, const int32_t* tokens, size_t n, float* logits);
  int32_t (*rollback)(void* user, size_t length);
  size_t (*length)(void* user);
} ark_executor;
/* Fills a table that drives a session. */
ARK_API ark_status ark_session_executor(ark_session* session, ark_executor* executor);

typedef struct ark_generate_options {
  size_t size;              /* sizeof(ark_generate_options) */
  int32_t max_tokens;       /* 0: until the context is full */
  float temperature;        /* 0: greedy */
  int32_t top_k;            /* 0: off */
  float top_p;              /* 1: off */
  float min_p;              /* 0: off */
  float repetition_penalty; /* 1: off */
  uint64_t seed;
  const int32_t* stop_ids; /* not emitted */
  size_t stop_id_count;
  const char* const* stop_strings; /* UTF-8, not emitted */
  size_t stop_string_count;
  /* Tokens that the executor already holds and the repetition penalty counts too. */
  const int32_t* history;
  size_t history_count;
} ark_generate_options;

typedef enum ark_finish {
  ARK_FINISH_NONE = 0, /* still going */
  ARK_FINISH_STOP_ID = 1,
  ARK_FINISH_STOP_STRING = 2,
  ARK_FINISH_LENGTH = 3,  /* max_tokens */
  ARK_FINISH_CONTEXT = 4, /* the context is full */
  ARK_FINISH_CANCELLED = 5
} ark_finish;

typedef struct ark_piece {
  size_t size;       /* sizeof(ark_piece) */
  int32_t token;     /* -1: no token, only held-back text */
  const char* text;  /* complete UTF-8, not terminated; valid until the next call */
  size_t text_bytes; /* may be 0 while a character or a possible stop string is held back */
  int32_t finish;    /* ark_finish */
} ark_piece;

typedef struct ark_generation ark_generation;
/* Start: the prompt is appended by the first ark_generation_next. The vocabulary
 * of token bytes comes from the model. The executor must outlive the generation. */
ARK_API ark_status ark_generation_create(const ark_model* model, const ark_executor* executor,
                                         const int32_t* prompt, size_t prompt_tokens,
                                         const ark_generate_options* options,
                                         ark_generation** generation);
/* The next token, or the end (finish != 0; the last piece may carry text). */
ARK_API ark_status ark_generation_next(ark_generation* generation, ark_piece* piece);
ARK_API void ark_generation_cancel(ark_generation* generation);
ARK_API void ark_generation_free(ark_generation* generation);

typedef struct ark_timings {
  size_t size; /* sizeof(ark_timings) */
  double prefill_seconds;
  double decode_seconds;
  int32_t prompt_tokens;
  int32_t generated_tokens;
} ark_timings;
ARK_API ark_status ark_generation_timings(const ark_generation* generation, ark_timings* timings);

/* The whole loop with a callback; a non-zero return from it cancels. */
typedef int32_t (*ark_piece_fn)(void* user, const ark_piece* piece);
ARK_API ark_status ark_generate(const ark_model* model, const ark_executor* executor,
                                const int32_t* prompt, size_t prompt_tokens,
                                const ark_generate_options* options, ark_piece_fn callback,
                                void* user);

/* ---- tools ------------------------------------------------------------- */

/* The bundle format's checksum of a memory range (docs/bundle.md). */
ARK_API uint32_t ark_checksum(const void* data, size_t bytes);

/* Run one kernel, for tests: every operand is a named array. See native/src/kernel.h. A tree of
 * tokens has ancestors and depths, one per token; NULL: each token follows the one before. */
typedef struct ark_operand {
  void* data; /* 64-byte aligned; NULL for an absent optional operand */
  int64_t shape[4];
  int64_t stride; /* elements between rows of a rank-2 operand */
  int32_t rank;
  int32_t dtype; /* ark::DType */
} ark_operand;
ARK_API ark_status ark_kernel_run(const char* kernel, const char* isa, const ark_operand* operands,
                                  size_t operand_count, const char* const* attribute_names,
                                  const double* attributes, size_t attribute_count, int64_t tokens,
                                  int64_t past, int64_t total, int32_t threads,
                                  const uint64_t* ancestors, const int32_t* depths);
/* Space-separated names of the kernel sets that this build holds and this CPU runs, best first. */
ARK_API const char* ark_isas(void);
/* What this CPU calls itself, or "". Tables of "arkinfer tune" hold for one CPU. */
ARK_API const char* ark_cpu(void);

#ifdef __cplusplus
}
#endif
#endif
