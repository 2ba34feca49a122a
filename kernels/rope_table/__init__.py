"""The rope_table (rotary cosines and sines) operator."""
