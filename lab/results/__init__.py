# SPDX-License-Identifier: MIT
"""Results of trials as plain data: saved, read back, merged over kernels, and compared."""
