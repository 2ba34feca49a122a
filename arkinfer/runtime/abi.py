"""The C ABI of ``native/include/arkinfer.h`` as ctypes: structs, callbacks and signatures."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)

ABI_VERSION = 1

OK = 0
KV_DEFAULT = -1
KV_TYPES = {"fp16": 0, "fp32": 1, "int8": 2, "int4": 3}
ACTIVATIONS = {"int8": 0, "fp32": 1}
KERNELS = {"tuned": 0, "builtin": 1, "compiled": 2}
ON = {"faster": 0, "device": 1, "cpu": 2}
CHECKSUM = {"before": 0, "skip": 1, "beside": 2}

FINISH_STOP_ID, FINISH_STOP_STRING, FINISH_LENGTH, FINISH_CONTEXT, FINISH_CANCELLED = range(1, 6)


class ModelOptions(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("checksum", c_int32)]


class ModelInfo(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("vocab_size", c_int32),
        ("layers", c_int32),
        ("kv_heads", c_int32),
        ("max_context", c_int32),
        ("chunk", c_int32),
    ]


class SessionOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("context", c_int32),
        ("threads", c_int32),
        ("kv_type", c_int32),
        ("activations", c_int32),
        ("isa", c_char_p),
        ("kernels", c_int32),
        ("on", c_int32),
    ]


class Memory(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("weights", c_uint64),
        ("kv_cache", c_uint64),
        ("compressed_keys", c_uint64),
        ("arena", c_uint64),
        ("tokenizer", c_uint64),
    ]


class Choice(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("on", c_int32),
        ("device_prefill", c_double),
        ("device_decode", c_double),
        ("cpu_prefill", c_double),
        ("cpu_decode", c_double),
        ("device", c_char * 256),
        ("why", c_char * 1024),
    ]


TraceFunction = CFUNCTYPE(
    None, c_void_p, c_char_p, c_char_p, c_double, POINTER(c_float), c_size_t, c_size_t, c_size_t
)
AppendFunction = CFUNCTYPE(c_int32, c_void_p, POINTER(c_int32), c_size_t, POINTER(c_float))
RollbackFunction = CFUNCTYPE(c_int32, c_void_p, c_size_t)
LengthFunction = CFUNCTYPE(c_size_t, c_void_p)


class ExecutorTable(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("user", c_void_p),
        ("vocab_size", c_int32),
        ("context", c_size_t),
        ("append", AppendFunction),
        ("rollback", RollbackFunction),
        ("length", LengthFunction),
    ]


class GenerateOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("max_tokens", c_int32),
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("seed", c_uint64),
        ("stop_ids", POINTER(c_int32)),
        ("stop_id_count", c_size_t),
        ("stop_strings", POINTER(c_char_p)),
        ("stop_string_count", c_size_t),
        ("history", POINTER(c_int32)),
        ("history_count", c_size_t),
    ]


class PieceStruct(ctypes.Structure):
    # text is a plain pointer: c_char_p would stop at a zero byte.
    _fields_ = [
        ("size", c_size_t),
        ("token", c_int32),
        ("text", c_void_p),
        ("text_bytes", c_size_t),
        ("finish", c_int32),
    ]


class Timings(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("prefill_seconds", c_double),
        ("decode_seconds", c_double),
        ("prompt_tokens", c_int32),
        ("generated_tokens", c_int32),
    ]


class KernelOperand(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("shape", c_int64 * 4),
        ("stride", c_int64),
        ("rank", c_int32),
        ("dtype", c_int32),
    ]


_HANDLE = c_void_p
_OUT = POINTER(c_void_p)

# name -> (result, arguments), in the header's order.
SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "ark_version": (c_char_p, []),
    "ark_status_name": (c_char_p, [c_int32]),
    "ark_last_error": (c_char_p, []),
    "ark_model_load": (c_int32, [c_char_p, POINTER(ModelOptions), _OUT]),
    "ark_model_free": (None, [_HANDLE]),
    "ark_model_get_info": (c_int32, [_HANDLE, POINTER(ModelInfo)]),
    "ark_model_plan_memory": (c_int32, [_HANDLE, POINTER(SessionOptions), POINTER(Memory)]),
    "ark_session_create": (c_int32, [_HANDLE, POINTER(SessionOptions), _OUT]),
    "ark_session_free": (None, [_HANDLE]),
    "ark_session_get_choice": (c_int32, [_HANDLE, POINTER(Choice)]),
    "ark_model_kept_choice": (c_int32, [_HANDLE, POINTER(SessionOptions), POINTER(Choice)]),
    "ark_session_append": (
        c_int32,
        [_HANDLE, POINTER(c_int32), c_size_t, c_int32, POINTER(c_float)],
    ),
    "ark_session_rollback": (c_int32, [_HANDLE, c_size_t]),
    "ark_session_verify_tree": (
        c_int32,
        [_HANDLE, POINTER(c_int32), POINTER(c_int32), c_size_t, POINTER(c_float)],
    ),
    "ark_session_accept": (c_int32, [_HANDLE, POINTER(c_int32), c_size_t]),
    "ark_session_fill_random": (c_int32, [_HANDLE, c_size_t, c_uint64]),
    "ark_session_length": (c_size_t, [_HANDLE]),
    "ark_session_context": (c_size_t, [_HANDLE]),
    "ark_session_isa": (c_char_p, [_HANDLE]),
    "ark_session_threads": (c_int32, [_HANDLE]),
    "ark_session_cancel": (None, [_HANDLE]),
    "ark_session_selected_blocks": (
        c_int32,
        [_HANDLE, c_int32, c_int32, POINTER(c_int32), c_size_t, POINTER(c_size_t)],
    ),
    "ark_session_set_trace": (None, [_HANDLE, TraceFunction, c_void_p]),
    "ark_session_executor": (c_int32, [_HANDLE, POINTER(ExecutorTable)]),
    "ark_generation_create": (
        c_int32,
        [
            _HANDLE,
            POINTER(ExecutorTable),
            POINTER(c_int32),
            c_size_t,
            POINTER(GenerateOptions),
            _OUT,
        ],
    ),
    "ark_generation_next": (c_int32, [_HANDLE, POINTER(PieceStruct)]),
    "ark_generation_cancel": (None, [_HANDLE]),
    "ark_generation_free": (None, [_HANDLE]),
    "ark_generation_timings": (c_int32, [_HANDLE, POINTER(Timings)]),
    "ark_checksum": (c_uint32, [c_void_p, c_size_t]),
    "ark_kernel_run": (
        c_int32,
        [
            c_char_p,
            c_char_p,
            POINTER(KernelOperand),
            c_size_t,
            POINTER(c_char_p),
            POINTER(c_double),
            c_size_t,
            c_int64,
            c_int64,
            c_int64,
            c_int32,
            c_void_p,
            c_void_p,
        ],
    ),
    "ark_isas": (c_char_p, []),
    "ark_cpu": (c_char_p, []),
}


def bind(library: ctypes.CDLL) -> None:
    """Give every function of the ABI its result and argument types."""
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
