"""Make transformers.npz: float32 logits of SmolLM2-135M-Instruct by Hugging Face transformers.

    pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0
    python make_transformers.py SmolLM2-135M-Instruct.Q4_1.gguf     # after make_llamacpp.py

transformers reads and dequantizes the GGUF file itself (values and q/k row
order), so nothing here depends on our readers. Stored per prompt: the logits
of every position for every 384th token of the vocabulary, the log-sum-exp over the
whole of it, and 64 greedy tokens with the gap between the best two logits.
Stored for the text: the best token and that gap at each of 2,000 positions.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
STRIDE = 384
GREEDY = 64


def gaps(logits: torch.Tensor) -> np.ndarray:
    best = torch.topk(logits, 2, dim=-1).values
    return (best[..., 0] - best[..., 1]).numpy()


@torch.inference_mode()
def main(path: Path) -> None:
    torch.set_num_threads(2)
    model = transformers.LlamaForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    arrays = {
        "version": np.array(transformers.__version__),
        "columns": np.arange(0, model.config.vocab_size, STRIDE),
    }
    for name, prompt in json.loads((HERE / "prompts.json").read_text(encoding="utf-8")).items():
        ids = list(prompt["token_ids"])
        output = model(torch.tensor([ids]), use_cache=True)
        logits = output.logits[0]
        arrays[f"{name}.logits"] = logits[:, ::STRIDE].numpy()
        arrays[f"{name}.logsumexp"] = torch.logsumexp(logits, -1).numpy()
        greedy, margins, last, cache = [], [], logits[-1], output.past_key_values
        for _ in range(GREEDY):
            greedy.append(int(last.argmax()))
            margins.append(gaps(last))
            output = model(torch.tensor([[greedy[-1]]]), past_key_values=cache, use_cache=True)
            last, cache = output.logits[0, -1], output.past_key_values
        arrays[f"{name}.greedy"] = np.array(greedy, np.int32)
        arrays[f"{name}.greedy_gap"] = np.array(margins, np.float32)

    tokens = np.load(HERE / "llamacpp.npz")["tokens"]
    logits = model(torch.tensor(tokens[None].astype(np.int64))).logits[0]
    arrays["text.top1"] = logits.argmax(-1).numpy().astype(np.int32)
    arrays["text.gap"] = gaps(logits)
    np.savez_compressed(HERE / "transformers.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
