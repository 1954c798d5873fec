"""Labs that stay are made in a `/run` of the tests' own."""

from tests.support.standing import own_run

__all__ = ["own_run"]
