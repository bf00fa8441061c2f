"""Pictures larger than memory: restored tile by tile, on one machine or on a cluster."""
