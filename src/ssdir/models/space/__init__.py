"""SPACE (Lin et al. 2020)."""
