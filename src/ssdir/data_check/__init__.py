"""The check of a data set: what is wrong with it, and which recipe suits it."""
