"""`ssdir data …`: makes, checks, converts and unpacks data sets."""
