"""python -m aa2c. Child processes import this module again, so that it must stay empty for them."""

if __name__ == "__main__":
    from aa2c.cli.main import main

    raise SystemExit(main())
