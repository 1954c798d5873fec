# SPDX-License-Identifier: MIT
"""A trial: its setting, the one runner, many in a batch and side by side, and the probe of what this kernel does."""
