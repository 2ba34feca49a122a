"""The matmul (linear layer) operator."""
