"""Embeddings of real photographs, compared: trained models, crops through a pretrained network, and floors."""
