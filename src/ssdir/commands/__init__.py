"""The commands of the command line, a module each; `ssdir.cli` registers them."""
