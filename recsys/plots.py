"""Figures without a display; matplotlib comes with an extra that servers and training do without."""

from __future__ import annotations

from typing import Any

from recsys.errors import InstallationError, install_line


def figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure that `savefig` writes.

    Args:
        width: in inches.
        height: in inches.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InstallationError(
            f"a plot needs the package {error.name!r}, which is not installed. Run: {install_line('explore')}"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
