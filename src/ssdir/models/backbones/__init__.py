"""Networks that read images: backbones of detectors, and whole networks over crops."""
