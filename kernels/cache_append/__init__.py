"""The cache_append (KV cache update) operator."""
