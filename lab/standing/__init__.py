# SPDX-License-Identifier: MIT
"""Labs that stay: each owned by one small process, with namespaces that ``ip netns`` sees by name."""
