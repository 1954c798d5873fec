# SPDX-License-Identifier: MIT
"""Captures that somebody else made: reading them, and explaining the connections in them. Plain data in and out."""
