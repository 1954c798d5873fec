# SPDX-License-Identifier: MIT
"""The pytest plugin: fixtures, the mark and the options."""
