"""The rms_norm (root-mean-square normalisation) operator."""
