"""The compress_keys (InfLLM v2 key compression) operator."""
