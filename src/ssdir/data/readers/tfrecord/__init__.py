"""The multi-object data sets of DeepMind, stored as TFRecord files."""
