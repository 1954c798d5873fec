# SPDX-License-Identifier: MIT
"""What was observed, as plain data: packets, sightings, judgements, entries, and the model of the window."""
