"""The command `ssdir`; `python -m ssdir`, where it is not on the path."""

import sys


def main() -> None:
    """Entry point. Ctrl-C ends even the import of the commands without a traceback."""
    try:
        from ssdir.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: no unfinished output was kept\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
