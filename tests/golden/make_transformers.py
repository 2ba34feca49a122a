"""Make the .npz files beside this script: logits of Hugging Face transformers.

MiniCPM4 with its three muP scales folded into the weights is a Llama, so transformers'
own Llama computes the reference. Needs torch and transformers; the tests need neither.

    python tests/golden/make_transformers.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.tiny_models import Tensors  # noqa: E402
from tests.support.transformers_golden import CASES, FOLDER, Case  # noqa: E402


def fold(config: dict[str, Any], tensors: Tensors) -> Tensors:
    """The weights of a Llama that computes what MiniCPM does; the head is always untied."""
    hidden = config["hidden_size"]
    residual = config.get("scale_depth", config["num_hidden_layers"] ** 0.5)
    residual /= config["num_hidden_layers"] ** 0.5
    folded = {name: values.astype(np.float64) for name, values in tensors.items()}
    embedding = folded["model.embed_tokens.weight"]
    head = folded.get("lm_head.weight", embedding)
    folded["lm_head.weight"] = head * config.get("dim_model_base", hidden) / hidden
    folded["model.embed_tokens.weight"] = embedding * config.get("scale_emb", 1.0)
    for name in folded:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            folded[name] = folded[name] * residual
    return folded


def logits(case: Case) -> np.ndarray:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config, tensors = case.config(), case.tensors()
    rope: dict[str, Any] = dict(config.get("rope_scaling", {"rope_type": "default"}))
    rope["rope_theta"] = config["rope_theta"]
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=config["hidden_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=config["num_attention_heads"],
            num_key_value_heads=config["num_key_value_heads"],
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            rms_norm_eps=config["rms_norm_eps"],
            max_position_embeddings=config["max_position_embeddings"],
            rope_parameters=rope,
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
    ).to(torch.float64)
    # Products are float64; norms, softmax and rotary tables stay float32 in transformers.
    state = {name: torch.from_numpy(values) for name, values in fold(config, tensors).items()}
    model.load_state_dict(state, strict=True)
    model.eval()
    with torch.no_grad():
        found = model(torch.tensor([case.tokens()])).logits[0]
    return found[list(case.rows)].to(torch.float32).numpy()


def main() -> None:
    for case in CASES:
        np.savez_compressed(FOLDER / f"{case.name}.npz", logits=logits(case))
        print(case.name)


if __name__ == "__main__":
    main()
