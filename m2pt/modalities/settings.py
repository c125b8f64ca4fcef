"""Epsilons of the LayerNorms of each method. Plain Python, so that reading a config imports no torch."""

NORM_EPS = 1e-6
"""That of MAE, AudioMAE and VideoMAE."""

POINTCLOUD_NORM_EPS = 1e-5
"""That of Point-MAE, torch's default."""
