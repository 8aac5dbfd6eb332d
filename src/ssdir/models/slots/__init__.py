"""Slot Attention (Locatello et al. 2020)."""
