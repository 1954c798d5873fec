# SPDX-License-Identifier: MIT
"""A plugin of pytest's in the guest: it writes down every report, for the pytest on the machine to take up.

Loaded there by ``-p lab.kernels.reporting``, and nowhere else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import pytest

#: The file in the guest's results: one report in JSON a line.
FILE: Final = "reports.jsonl"


def pytest_configure(config: pytest.Config) -> None:
    """Write reports in the process that has all of them: not in xdist's workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(config, Path(os.environ["LAB_RESULTS"]) / FILE))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return 0: a guest has little memory, and the guests themselves run side by side."""
    return 0


class _Writer:
    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        self._file = path.open("w", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._write(report)

    def _write(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        # Properties of a test may be anything; a report is worth more than one of them.
        print(json.dumps(data, default=str), file=self._file, flush=True)

    def pytest_unconfigure(self) -> None:
        self._file.close()
