// What code for CUDA includes of it is in cuda_on_cpu.h.
