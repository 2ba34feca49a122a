"""The attention (dense causal attention) operator."""
