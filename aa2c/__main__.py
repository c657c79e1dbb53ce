"""python -m aa2c, and the command aa2c. The processes of `bench` import this module again."""

import sys


def main() -> int:
    """Run the command."""
    from aa2c.cli.signals import hold, interrupted

    if sys.argv[1:2] == ["serve"]:
        hold()
    try:
        from aa2c.cli.main import main as run

        return run()
    except KeyboardInterrupt:  # while it is still imported
        return interrupted()


if __name__ == "__main__":
    raise SystemExit(main())
