# SPDX-License-Identifier: MIT
"""Looking on: at a lab that stands, or at this machine, which is only read."""
