"""From the graph to steps, each the call of one kernel: what backends with kernels share."""
