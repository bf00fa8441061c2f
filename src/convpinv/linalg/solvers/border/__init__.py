"""Every boundary directly: a periodic convolution, and what differs from it near the border eliminated."""
