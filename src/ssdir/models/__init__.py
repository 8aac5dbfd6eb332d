"""Backbones, the SSD detector, SSDIR and the baselines, all with one face."""
