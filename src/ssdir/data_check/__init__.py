"""`ssdir data check`: what is wrong with a data set, and which recipe suits it."""
