"""What kernels of several operators share; not an operator."""
