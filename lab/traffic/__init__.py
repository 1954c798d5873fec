# SPDX-License-Identifier: MIT
"""Real clients and servers."""
