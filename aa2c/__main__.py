"""python -m aa2c. The processes of `bench` import this module again: it must stay empty for them."""

if __name__ == "__main__":
    from aa2c.cli.main import main

    raise SystemExit(main())
