# SPDX-License-Identifier: MIT
"""A running lab: a topology built out of network namespaces, with the rules that its nodes' kube-proxies load."""
