"""The block_sparse_attention (InfLLM v2 attention over selected blocks) operator."""
