"""Exported models: writing ONNX files, quantising them, and running them without torch."""
