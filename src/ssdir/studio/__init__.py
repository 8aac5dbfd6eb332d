"""A studio on one's own machine: see what a model finds, edit it, explore a data set's objects, compare models."""
