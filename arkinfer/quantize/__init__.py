"""How weights are quantized: schemes, the policy that chooses them, and round-to-nearest."""
