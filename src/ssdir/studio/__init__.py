"""The studio in the browser: inspect detected objects, edit scenes, explore data sets and compare models."""
