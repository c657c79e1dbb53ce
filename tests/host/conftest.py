"""Segments for the tests of `aa2c.host`, as those of `aa2c.shm` have them."""

from tests.shm.conftest import make_segment

__all__ = ["make_segment"]
