"""The engines, each behind the same few methods; each runs in a worker of its own.

- ``open(...) -> dict``: load a model; gives versions and settings for the record.
- ``prefill(tokens, depth) -> float``: seconds of one prompt.
- ``decode(steps, depth) -> float``: seconds per token of tokens that are decoded one by one.
- ``fill(depth)``: put that many tokens into the cache without computing them.
- ``verify(rows, depth) -> float``: seconds of one append of ``rows`` whose logits are all wanted.
- ``peak_rss() -> int``: the most physical memory that the process has held, in bytes.

An engine that lacks a method is not asked for it.
"""
