"""PyTorch's loops: from the tutorial's own to the fastest that its documentation knows."""
