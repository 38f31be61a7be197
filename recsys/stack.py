"""The one place that imports TensorFlow, TensorFlow Recommenders and ScaNN, lazily and after checking that they fit.

``from recsys.stack import tf`` costs nothing until the first attribute is read. A broken pair then raises
`InstallationError` with the line to run, instead of an undefined-symbol error of the linker.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import platform
import sys
import threading
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from recsys.errors import InstallationError, install_line

KERAS_FLAG = "TF_USE_LEGACY_KERAS"
LOG_LEVEL_FLAG = "TF_CPP_MIN_LOG_LEVEL"
LOG_LEVELS = ("INFO", "WARNING", "ERROR", "FATAL")
"""The lowest level of log lines that the libraries write, by the number that `LOG_LEVEL_FLAG` gives."""
# Measured on CPython 3.11: ScaNN 1.4.2 links against TensorFlow 2.20; with 2.21 `import scann` ends in an
# undefined symbol, and TensorFlow Recommenders imports ScaNN.
EXPECTED = {
    "tensorflow": "2.20",
    "tf-keras": "2.20",
    "tensorflow-recommenders": "0.7.7",
    "scann": "1.4.2",
}
_importing = threading.RLock()
AVX2_SWITCH = "_ZN14research_scann14flags_internal15should_use_avx2E"
SET_MIN_LOG_LEVEL = "_ZN4absl12lts_2025012714SetMinLogLevelENS0_18LogSeverityAtLeastE"
"""Of ScaNN's own copy of Abseil, whose levels are those of `LOG_LEVEL_FLAG`."""
REPAIR = "python -m pip install 'tensorflow==2.20.*' 'tf-keras==2.20.*' 'scann==1.4.2'"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the environment.

    Attributes:
        what: a sentence that says what was found and why it breaks.
        repair: the command line that mends it.
    """

    what: str
    repair: str


def installed(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None; nothing is imported."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def problems(*, training: bool = False) -> list[Problem]:
    """Return what would break an import of the stack, without importing any of it.

    Args:
        training: also ask for TensorFlow Recommenders, which only training needs.
    """
    found = []
    for distribution, wanted in EXPECTED.items():
        version = installed(distribution)
        if version is None:
            if distribution != "tensorflow-recommenders" or training:
                extra = "train" if training else "serve"
                found.append(Problem(f"{distribution} is not installed.", install_line(extra)))
        elif version != wanted and not version.startswith(wanted + "."):
            why = (
                "ScaNN 1.4.2 is linked against TensorFlow 2.20; with another TensorFlow `import scann` ends in an "
                "undefined symbol"
                if distribution in ("tensorflow", "scann")
                else "the Keras 2 API must be of the same minor version as TensorFlow"
                if distribution == "tf-keras"
                else "other versions are untested with this stack"
            )
            repair = REPAIR if distribution != "tensorflow-recommenders" else f"{REPAIR} {distribution}=={wanted}"
            found.append(Problem(f"{distribution} is {version}, expected {wanted}: {why}.", repair))
    if os.environ.get(KERAS_FLAG, "1") not in ("1", "true", "True"):
        found.append(
            Problem(
                f"{KERAS_FLAG} is {os.environ[KERAS_FLAG]!r}: tf.keras would be Keras 3, which TensorFlow "
                "Recommenders and this project's saved towers do not speak.",
                f"export {KERAS_FLAG}=1",
            )
        )
    if platform.machine() == "x86_64" and (flags := cpu_flags()) and "avx2" not in flags:
        found.append(
            Problem("this processor has no AVX2, which ScaNN's x86-64 build needs.", "run on a processor with AVX2")
        )
    return found


def import_problems() -> list[Problem]:
    """Return what goes wrong when TensorFlow and ScaNN are really imported; empty where both work."""
    try:
        _import_checked("scann", training=False)
    except InstallationError as error:
        return [Problem(str(error), REPAIR)]
    return []


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags as Linux reports them; empty where it does not."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def scann_kernels() -> str:
    """Return what ScaNN's imported library searches with: `AVX2`, or what its build takes for granted (slower)."""
    switch = avx2_switch()
    return "AVX2" if switch is not None and switch.value else "its baseline instructions"


def avx2_switch() -> ctypes.c_bool | None:
    """Return the variable of ScaNN's imported library that says whether it may use AVX2; None where there is none."""
    library = _scann_library()
    try:
        return None if library is None else ctypes.c_bool.in_dll(library, AVX2_SWITCH)
    except ValueError:
        return None


def _scann_library() -> ctypes.CDLL | None:
    """Return ScaNN's imported library; None where there is none."""
    library = sys.modules.get("scann_pybind")
    try:
        return None if library is None else ctypes.CDLL(library.__file__)
    except OSError:
        return None


def _let_scann_use_avx2() -> None:
    """Tell ScaNN that the processor has AVX2, where it has.

    The wheels of 1.4.2 are built in such a way that they find no features on any processor, and so search with their
    oldest kernels. With the switch thrown a batch takes a third less time. Single queries find the same; of a batch a
    few in a thousand items differ, fewer than between a batch and single queries, at the same recall. The kernels for
    AVX-512 brought nothing more (measured). Nothing happens where the library has no such switch, as for other
    processors, or where nobody says what the processor has.
    """
    switch = avx2_switch()
    if switch is not None and {"avx2", "fma"} <= cpu_flags():
        switch.value = True


def _quiet_libraries() -> None:
    """Hold the imported libraries to the level of log lines that `LOG_LEVEL_FLAG` gives.

    The variable itself counts for TensorFlow's C++ code only. ScaNN and the Python code of TensorFlow and Abseil write
    such lines as well, and they would stand between the lines of the commands.
    """
    level = os.environ[LOG_LEVEL_FLAG]
    lowest = int(level) if level in ("0", "1", "2", "3") else 0
    if (library := _scann_library()) is not None and hasattr(library, SET_MIN_LOG_LEVEL):
        library[SET_MIN_LOG_LEVEL](lowest)
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(LOG_LEVELS[lowest])


class _LazyModule(ModuleType):
    """A module that is checked and imported when its first attribute is read."""

    def __init__(self, name: str, *, training: bool = False) -> None:
        super().__init__(name)
        self.__dict__["_training"] = training
        self.__dict__["_module"] = None

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if self._module is None:
            self.__dict__["_module"] = _import_checked(self.__name__, training=self._training)
        return getattr(self._module, attribute)


def _import_checked(name: str, *, training: bool) -> ModuleType:
    if found := problems(training=training):
        lines = "".join(f"\n- {problem.what}\n  Run: {problem.repair}" for problem in found)
        raise InstallationError(f"cannot import {name}:{lines}\n`recsys doctor` prints the whole picture.")
    if "tensorflow" in sys.modules and KERAS_FLAG not in os.environ and "tf_keras" not in sys.modules:
        raise InstallationError(
            f"TensorFlow was imported before {KERAS_FLAG}=1 was set, so tf.keras would be Keras 3. "
            f"Run: export {KERAS_FLAG}=1 (or import recsys.stack before tensorflow)."
        )
    os.environ.setdefault(KERAS_FLAG, "1")
    os.environ.setdefault(LOG_LEVEL_FLAG, "3")
    with _importing:
        collecting = gc.isenabled()
        gc.disable()  # a million objects are made that stay: looking for garbage among them takes a tenth of the time
        if name == "scann":
            # ScaNN also registers TensorFlow ops where TensorFlow can be imported. Nothing here uses them, and a server
            # without TensorFlow starts 6 s sooner and takes 580 MB less.
            sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type] # as the import system documents it
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise InstallationError(
                f"cannot import {name}: {error}. `recsys doctor` explains what is wrong."
            ) from error
        finally:
            if sys.modules.get("tensorflow", ...) is None:
                del sys.modules["tensorflow"]
            if collecting:
                gc.enable()
    if name == "scann":
        _let_scann_use_avx2()
    _quiet_libraries()
    return module


tf = _LazyModule("tensorflow")
tfrs = _LazyModule("tensorflow_recommenders", training=True)
scann = _LazyModule("scann")
