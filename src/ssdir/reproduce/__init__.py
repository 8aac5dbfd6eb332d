"""`ssdir reproduce`: runs the paper's experiments as a plan lists them."""
