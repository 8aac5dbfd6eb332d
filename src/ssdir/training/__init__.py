"""The only place that knows Lightning: modules, feature cache, fit."""
