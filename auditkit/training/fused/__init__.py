"""TopK's step with numba kernels, and the candidates it scores."""
