"""Labs that stay, in a `/run` of the tests' own."""

from tests.support.own_run import own_run

__all__ = ["own_run"]
