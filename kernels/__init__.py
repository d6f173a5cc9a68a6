"""The kernels in Python: Numba CUDA, one file an operation, each read from top to bottom like a lesson.

A file opens with what it computes, the shapes, its rungs and the arithmetic of the roofline; then come the kernels,
simplest first, and last the host function that picks a rung and launches it. The twin of ``conv2d.py`` in CUDA C++ is
``csrc/cuda/conv2d.cuh``. The kernels run on a GPU, or without one under Numba's simulator (docs/numba.md); what they
use of Numba is only what the simulator has too. Importing a file imports numba: ``cnnengine.backends.numba`` decides
when.
"""
