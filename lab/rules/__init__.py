# SPDX-License-Identifier: MIT
"""`lab rules`: kube-proxy's rules for given objects, as this kernel gives them back, and against a real node's.

:mod:`~lab.rules.source` says what to render, :mod:`~lab.rules.scratch` has the kernel load and save it,
:mod:`~lab.rules.restored` and :mod:`~lab.rules.listed` write what would be saved without loading it,
:mod:`~lab.rules.expected` and :mod:`~lab.rules.saving` take the one road or the other,
:mod:`~lab.rules.read_dump` reads what iptables-save and nft print, :mod:`~lab.rules.dump` is what that holds,
:mod:`~lab.rules.normal` brings it into one form, :mod:`~lab.rules.diff` compares. Of the differences
:mod:`~lab.rules.effects` tells which change what becomes of a packet, :mod:`~lab.rules.leftovers` what others left
behind, and :mod:`~lab.rules.causes` tries what explains them: other releases, settings, Services and endpoints, each a
:mod:`~lab.rules.whatifs`. :mod:`~lab.rules.output` writes the answer.
"""
