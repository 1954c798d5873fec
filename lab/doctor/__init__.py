# SPDX-License-Identifier: MIT
"""What this machine is and lacks, and whether the node that it may be is exposed."""
