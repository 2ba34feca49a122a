"""What backends share whose kernels are described in TIR and launched on a device.

The steps of the CPU's lowering become launches of emitted kernels (``launches.py``), buffers share
memory (``plan.py``), and weights lie in rows of words (``weights.py``).
"""
