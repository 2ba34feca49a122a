"""llama.cpp, through the C functions of llama-cpp-python.

Attention has two implementations, chosen by its flash-attention flag; weights in Q4_0 are
repacked for the processor when they are loaded, which is its default.
"""

from __future__ import annotations

import ctypes
import struct
from importlib import metadata
from typing import Any

from benchmarks.peers._process import Process, seconds, tokens

# Cells that are computed once and then put into the cache again and again.
_BLOCK = 1024
_STATE_HEAD, _STATE_CELL = 16, 12


class Peer(Process):
    def open(
        self, path: str, context: int, threads: int, flash: bool = False, ubatch: int = 512
    ) -> dict[str, Any]:
        import llama_cpp as api

        self._api = api
        api.llama_backend_init()
        # What it logs while loading is many thousand lines.
        self._log = api.llama_log_callback(lambda _level, _text, _user: None)
        api.llama_log_set(self._log, None)
        model = api.llama_model_default_params()
        model.n_gpu_layers = 0
        self._model = api.llama_model_load_from_file(path.encode(), model)
        if not self._model:
            raise RuntimeError(f"cannot load {path}")
        settings = api.llama_context_default_params()
        settings.n_ctx = -(-context // 256) * 256
        settings.n_batch = settings.n_ubatch = ubatch
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = 1 if flash else 0
        settings.n_seq_max = 2  # the second one receives what fill() copies
        settings.kv_unified = True
        settings.no_perf = True
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise RuntimeError(f"cannot make a context of {context} tokens")
        self._memory = api.llama_get_memory(self._context)
        self._batch = api.llama_batch_init(ubatch, 0, 1)
        self._ubatch = ubatch
        vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model))
        self._tokens = tokens(vocab, max(ubatch, _BLOCK))
        return {
            "version": metadata.version("llama-cpp-python"),
            "system": api.llama_print_system_info().decode().strip(),
            "flash_attention": flash,
            "n_ubatch": ubatch,
            "kv": "fp16",
        }

    def prefill(self, tokens: int, depth: int = 0) -> float:
        self._rollback(depth)
        return seconds(lambda: self._append(tokens, depth))

    def decode(self, steps: int, depth: int = 0) -> float:
        self._rollback(depth)

        def run() -> None:
            for step in range(steps):
                self._append(1, depth + step)

        return seconds(run) / steps

    def verify(self, rows: int, depth: int = 0) -> float:
        self._rollback(depth)
        return seconds(lambda: self._append(rows, depth, all_logits=True))

    def prefill_all(self, tokens: int, depth: int = 0) -> float:
        """Like prefill, with the logits of all rows: then no row skips the last layer's FFN."""
        self._rollback(depth)
        return seconds(lambda: self._append(tokens, depth, all_logits=True))

    def fill(self, depth: int) -> None:
        """Fill the cache with copies of 1,024 computed cells, each at its own position.

        The state of a sequence says the position of each of its cells. With these changed it is
        loaded into a second sequence, whose cells are then given to the first.
        """
        api = self._api
        api.llama_memory_clear(self._memory, False)
        block = min(depth, _BLOCK)
        if block == 0:
            return
        for first in range(0, block, self._ubatch):
            self._append(min(self._ubatch, block - first), first)
        state = self._state(block)
        for first in range(block, depth, block):
            count = min(block, depth - first)
            for cell in range(block):
                struct.pack_into("<i", state, _STATE_HEAD + _STATE_CELL * cell, first + cell)
            if api.llama_state_seq_set_data(self._context, state, len(state), 1) == 0:
                raise RuntimeError(f"llama.cpp refused the state of cells {first} and on")
            api.llama_memory_seq_rm(self._memory, 1, first + count, -1)
            api.llama_memory_seq_cp(self._memory, 1, 0, first, first + count)
            api.llama_memory_seq_rm(self._memory, 1, -1, -1)
        last = api.llama_memory_seq_pos_max(self._memory, 0)
        if last != depth - 1:
            raise RuntimeError(f"the last filled position is {last}, not {depth - 1}")

    def _state(self, cells: int) -> Any:
        """The state of sequence 0, in the layout that fill() relies on.

        int32: a magic number, the sequence, streams, cells; then position, sequences and
        sequence of each cell.
        """
        api = self._api
        size = api.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        api.llama_state_seq_get_data(self._context, state, size, 0)
        head = struct.unpack_from("<3i", state, 4)
        found = struct.unpack_from(f"<{3 * cells}i", state, _STATE_HEAD)
        expected = tuple(number for cell in range(cells) for number in (cell, 1, 0))
        if head != (0, 1, cells) or found != expected:
            raise RuntimeError("this version of llama.cpp lays out its state in another way")
        return state

    def _append(self, count: int, past: int, all_logits: bool = False) -> None:
        api, batch = self._api, self._batch
        for first in range(0, count, self._ubatch):
            rows = min(self._ubatch, count - first)
            batch.n_tokens = rows
            for row in range(rows):
                batch.token[row] = self._tokens[(first + row + past) % len(self._tokens)]
                batch.pos[row] = past + first + row
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = 0
                batch.logits[row] = all_logits or first + row == count - 1
            status = api.llama_decode(self._context, batch)
            if status != 0:
                raise RuntimeError(f"llama_decode gave {status}")
        api.llama_synchronize(self._context)

    def _rollback(self, length: int) -> None:
        self._api.llama_memory_seq_rm(self._memory, 0, length, -1)
