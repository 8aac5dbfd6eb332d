"""`ssdir reproduce`: the paper's experiments by a plan."""
