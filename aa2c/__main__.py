"""python -m aa2c"""

from aa2c.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
