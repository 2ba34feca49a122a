"""The select_blocks (InfLLM v2 block selection) operator."""
