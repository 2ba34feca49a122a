"""Reductions that sampling needs: the best token of a row of logits, and their normalisation."""
