"""Portable kernels: what the descriptions in ``kernels/*/tir.py`` share.

A description is written once, as work-groups of lanes that meet at shared memory. On a GPU a
group is a block of threads; on a CPU groups run in parallel and lanes are a loop. TVM, of the
extra ``tvm``, is needed only to compile them.
"""
