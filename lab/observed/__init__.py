# SPDX-License-Identifier: MIT
"""What is seen while somebody looks on: flows, leaks and the resets that answer them, and what is said of them."""
