# SPDX-License-Identifier: MIT
"""A user's own node: what was collected of it, and the topology that its rules speak of."""
