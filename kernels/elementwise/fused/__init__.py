"""The Triton kernels of the small operations."""
