"""A lab that reproduces, explains and judges kube-proxy's and conntrack's subtleties on the running kernel."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # Reading the distribution's metadata costs milliseconds: only who asks pays.
    if name == "__version__":
        from importlib.metadata import version

        return version("kube-proxy-lab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
