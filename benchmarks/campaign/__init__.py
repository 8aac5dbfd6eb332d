"""Parts of benchmarks/robustness.py."""
