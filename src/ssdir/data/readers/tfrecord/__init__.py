"""DeepMind's multi-object data sets, stored as TFRecord files."""
