# SPDX-License-Identifier: MIT
"""Kubernetes objects as people write them: YAML documents, Services and EndpointSlices, and what is wrong with them."""
