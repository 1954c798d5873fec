# SPDX-License-Identifier: MIT
"""What to build: hosts, links, routes and Kubernetes objects, read from a file or made in Python.

Pure: nothing here knows the kernel. :mod:`~lab.topology.model` says what a topology is,
:mod:`~lab.topology.reader` reads one, :mod:`~lab.topology.checks` refuses what no kernel could build.
"""
