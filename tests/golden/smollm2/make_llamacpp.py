"""Make prompts.json and llamacpp.npz: what llama.cpp says about SmolLM2-135M-Instruct.

    pip install llama-cpp-python==0.3.36 jinja2 numpy
    python make_llamacpp.py SmolLM2-135M-Instruct.Q4_1.gguf

The text and the prompts are tokenized by llama.cpp, so that our own tokenizer
is tested against somebody else's. The network runs on the file's own bits:
Q4_1 weights, activations quantized to 8 bits, as llama.cpp does on a CPU.
"""

import json
import sys
from pathlib import Path

import jinja2
import llama_cpp
import numpy as np

HERE = Path(__file__).parent
TOKENS = 2000
QUESTIONS = {
    "english-fact": "What is the capital of France?",
    "english-advice": "Give me three tips for staying healthy.",
    "english-explain": "Explain in simple words why the sky is blue.",
    "code": "Write a Python function that returns the n-th Fibonacci number.",
    "chinese": "请用中文介绍一下长城。",
}


def tokenize(model: llama_cpp.Llama, text: str) -> list[int]:
    return model.tokenize(text.encode(), add_bos=False, special=True)


def main(path: str) -> None:
    model = llama_cpp.Llama(
        path, n_ctx=2048, n_batch=512, n_threads=2, logits_all=True, verbose=False
    )
    template = jinja2.Template(model.metadata["tokenizer.chat_template"])
    prompts = {}
    for name, question in QUESTIONS.items():
        messages = [{"role": "user", "content": question}]
        text = template.render(messages=messages, add_generation_prompt=True)
        prompts[name] = {"messages": messages, "text": text, "token_ids": tokenize(model, text)}
    (HERE / "prompts.json").write_text(
        json.dumps(prompts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )

    tokens = tokenize(model, (HERE / "text.txt").read_text(encoding="utf-8"))[:TOKENS]
    if len(tokens) != TOKENS:
        raise SystemExit(f"text.txt has {len(tokens)} tokens; expected at least {TOKENS}")
    model.eval(tokens)
    np.savez_compressed(
        HERE / "llamacpp.npz",
        version=np.array(llama_cpp.__version__),
        tokens=np.array(tokens, np.int32),
        top1=model.scores[:TOKENS].argmax(axis=1).astype(np.int32),
    )


if __name__ == "__main__":
    main(sys.argv[1])
