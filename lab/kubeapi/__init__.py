# SPDX-License-Identifier: MIT
"""As much of a Kubernetes API server as a kube-proxy asks: lists and watches of what it reads, over plain HTTP."""
