"""SPAIR (Crawford and Pineau 2019)."""
