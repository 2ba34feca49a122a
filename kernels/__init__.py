"""One folder per operator: ``reference.py`` is its definition in numpy, the rest are its kernels.

References take plain logical arrays (never packed layouts), compute in float64 and favour
the formula over speed. Every kernel is tested against its reference.
"""
