"""`python -m ssdir`, where the command is not on the path."""

from ssdir.cli import main

main()
