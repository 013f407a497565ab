"""Interface of a graph format: write a graph, and run the file for the parity check."""

from __future__ import annotations

import abc
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError
from a2fjax.export.graph import Graph
from a2fjax.export.source import Source

Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]
"""Inputs by name to the outputs in their order."""


class Format(abc.ABC):
    """A file format.

    Attributes:
      name: that it is registered under; also its folder in a bundle.
      ending: of its files.
      packages: modules that it imports, which an extra installs.
      extra: of pyproject.toml.
    """

    name = ""
    ending = ""
    packages: tuple[str, ...] = ()
    extra = "export"

    def check_installed(self) -> None:
        """Checks that the packages are there.

        Raises:
          InputError: names the first that is missing and the extra that has it.
        """
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f"--format {self.name}: the package {package} is missing; "
                    f"pip install 'a2fjax[{self.extra}]'"
                )

    def unsupported(self, graph: Graph, source: Source) -> str:
        """Returns why this format cannot hold a graph, as the end of a sentence; "" if it can."""
        return graph.unsupported(source)

    @abc.abstractmethod
    def write(
        self, graph: Graph, source: Source, path: Path, description: Mapping[str, Any]
    ) -> None:
        """Writes a graph.

        Args:
          graph: what to write.
          source: the model.
          path: of the file.
          description: the manifest without its list of files, stored in the file if the format has
            a place for it.
        """

    @abc.abstractmethod
    def load(self, path: Path, graph: Graph, source: Source) -> Run:
        """Returns a function that runs a file that `write` wrote."""
