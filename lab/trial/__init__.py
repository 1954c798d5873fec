# SPDX-License-Identifier: MIT
"""A trial: its setting, the one runner, many in a row, and the probe of what this kernel does."""
