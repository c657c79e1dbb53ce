"""python -m aa2c, and the command aa2c. The processes of `bench` import this module again."""

import sys


def main() -> int:
    """Run the command."""
    if sys.argv[1:2] == ["serve"]:
        from aa2c.cli.signals import hold

        hold()
    from aa2c.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
